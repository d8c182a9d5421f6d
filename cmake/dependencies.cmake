# Every library that Trident links, found once. docs/dependencies.md says why each is here.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
find_program(PROTOC_C protoc-c REQUIRED)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE oneapi/dnnl/dnnl.h REQUIRED)

# Debian installs Open MPI and MPICH side by side; each has a wrapper and a launcher of its own
# name. Elsewhere there is one mpicc, that of the module which is loaded; -DMPI_C_COMPILER= and
# -DTRIDENT_MPIEXEC= say others.
find_program(MPI_C_COMPILER NAMES mpicc.${TRIDENT_MPI} mpicc REQUIRED)
find_program(TRIDENT_MPIEXEC NAMES mpiexec.${TRIDENT_MPI} mpiexec REQUIRED)
set(MPIEXEC_EXECUTABLE ${TRIDENT_MPIEXEC})
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI REQUIRED COMPONENTS C)
# Which one the wrapper is of: its mpi.h says so.
include(CheckCSourceCompiles)
unset(TRIDENT_MPI_IS_OPEN_MPI CACHE)
set(CMAKE_REQUIRED_LIBRARIES MPI::MPI_C)
set(CMAKE_REQUIRED_QUIET ON)
check_c_source_compiles(
    "#include <mpi.h>\n#ifndef OPEN_MPI\n#error\n#endif\nint main(void) { return 0; }\n"
    TRIDENT_MPI_IS_OPEN_MPI)
unset(CMAKE_REQUIRED_LIBRARIES)
unset(CMAKE_REQUIRED_QUIET)
include(${CMAKE_CURRENT_LIST_DIR}/check_mpi.cmake)
add_library(trident_dnnl INTERFACE)
target_include_directories(trident_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE})
target_link_libraries(trident_dnnl INTERFACE ${DNNL_LIBRARY})
