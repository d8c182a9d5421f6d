# Whether the MPI that was found is the one that was asked for. In: TRIDENT_MPI, MPI_C_COMPILER,
# TRIDENT_MPI_IS_OPEN_MPI. Of the default nobody knows whether it was asked for.
if(TRIDENT_MPI STREQUAL "openmpi" AND NOT TRIDENT_MPI_IS_OPEN_MPI)
    message(WARNING "TRIDENT_MPI is openmpi, and ${MPI_C_COMPILER} is of another MPI: Trident is "
        "built with that; -DTRIDENT_MPI=mpich says so to the tests")
elseif(TRIDENT_MPI STREQUAL "mpich" AND TRIDENT_MPI_IS_OPEN_MPI)
    message(FATAL_ERROR "TRIDENT_MPI is mpich, and ${MPI_C_COMPILER} is Open MPI's: install "
        "MPICH, load its module, or name its mpicc with -DMPI_C_COMPILER=")
elseif(NOT TRIDENT_MPI MATCHES "^(openmpi|mpich)$")
    message(FATAL_ERROR "TRIDENT_MPI is '${TRIDENT_MPI}', expected openmpi or mpich; another MPI "
        "is named with -DMPI_C_COMPILER=, beside the one of these that it is made from")
endif()
