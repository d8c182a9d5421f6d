# cmake --install: the program, and for programs that embed Trident its headers, all folders as one
# archive, and what pkg-config and find_package(trident) read.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(cmake/pkg_config.cmake)

set(folders embed train infer plan checkpoint data optim moe model comm shard kernel tensor config
    base)
set(archive ${CMAKE_BINARY_DIR}/lib/libtrident.a)
set(script "CREATE ${archive}\n")
foreach(folder ${folders})
    string(APPEND script "ADDLIB $<TARGET_FILE:trident_${folder}>\n")
    list(APPEND parts trident_${folder})
endforeach()
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/archive.mri CONTENT "${script}SAVE\nEND\n")
add_custom_command(OUTPUT ${archive}
    COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
    COMMAND ${CMAKE_AR} -M < ${CMAKE_BINARY_DIR}/archive.mri
    DEPENDS ${parts} VERBATIM)
add_custom_target(trident_archive ALL DEPENDS ${archive})

set(TRIDENT_REQUIRES jansson yaml-0.1 libxxhash libpcre2-8 libutf8proc zlib libzstd hwloc)
list(JOIN TRIDENT_REQUIRES " " TRIDENT_REQUIRES)
set(TRIDENT_LIBRARIES ${DNNL_LIBRARY} ${MPI_C_LIBRARIES})
list(JOIN TRIDENT_LIBRARIES " " TRIDENT_LIBRARIES_LINE)
set(destination ${CMAKE_INSTALL_LIBDIR}/cmake/trident)
trident_pkg_config(${CMAKE_SOURCE_DIR}/cmake/trident.pc.in ${CMAKE_BINARY_DIR}/trident.pc)
configure_package_config_file(cmake/trident-config.cmake.in
    ${CMAKE_BINARY_DIR}/trident-config.cmake INSTALL_DESTINATION ${destination}
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/trident-config-version.cmake
    COMPATIBILITY SameMinorVersion)

# Whoever has built the program alone has no archive yet.
install(CODE "execute_process(COMMAND \"${CMAKE_COMMAND}\" --build \"${CMAKE_BINARY_DIR}\"
    --target trident trident_archive COMMAND_ERROR_IS_FATAL ANY)")
install(TARGETS trident)
install(DIRECTORY include/trident TYPE INCLUDE)
install(FILES ${archive} TYPE LIB)
install(FILES ${CMAKE_BINARY_DIR}/trident.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_BINARY_DIR}/trident-config.cmake
    ${CMAKE_BINARY_DIR}/trident-config-version.cmake DESTINATION ${destination})
