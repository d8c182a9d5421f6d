# cmake --install: the program, its manual pages, completions, docs and examples; and for programs
# that embed Trident its headers, all folders as one archive, and what pkg-config and
# find_package(trident) read (component "development"). Nothing in it knows where it is: it may be
# moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(cmake/pkg_config.cmake)
include(cmake/run_path.cmake)

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

# Pages have the date of SOURCE_DATE_EPOCH, or else of the commit.
set(epoch $ENV{SOURCE_DATE_EPOCH})
if(NOT epoch AND GIT_EXECUTABLE)
    execute_process(COMMAND ${GIT_EXECUTABLE} -C ${CMAKE_SOURCE_DIR} log -1 --format=%ct
        OUTPUT_VARIABLE epoch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(pages ${CMAKE_BINARY_DIR}/share)
add_custom_command(OUTPUT ${pages}/man/man1/trident.1
    COMMAND ${CMAKE_COMMAND} -E env SOURCE_DATE_EPOCH=${epoch} ${CMAKE_COMMAND}
        -DTRIDENT=$<TARGET_FILE:trident> -DOUT=${pages} -P ${CMAKE_SOURCE_DIR}/cmake/manual.cmake
    DEPENDS trident ${CMAKE_SOURCE_DIR}/cmake/manual.cmake VERBATIM)
add_custom_target(trident_pages DEPENDS ${pages}/man/man1/trident.1)

set(TRIDENT_REQUIRES jansson yaml-0.1 libxxhash libpcre2-8 libutf8proc zlib libzstd hwloc
    libprotobuf-c)
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

set(libraries ${TRIDENT_LIBRARIES})
foreach(package JANSSON YAML XXHASH PCRE2 UTF8PROC ZLIB ZSTD HWLOC PROTOBUF_C)
    list(APPEND libraries ${${package}_LINK_LIBRARIES})
endforeach()
trident_run_path(run_path ${libraries})
set_target_properties(trident PROPERTIES INSTALL_RPATH "${run_path}")

# Whoever has built the program alone has neither archive nor pages yet.
foreach(component program development)
    install(CODE "execute_process(COMMAND \"${CMAKE_COMMAND}\" --build \"${CMAKE_BINARY_DIR}\"
        --target trident trident_archive trident_pages COMMAND_ERROR_IS_FATAL ANY)"
        COMPONENT ${component})
endforeach()
install(TARGETS trident COMPONENT program)
install(DIRECTORY ${pages}/ TYPE DATA COMPONENT program)
install(FILES README.md LICENSE TYPE DOC COMPONENT program)
install(DIRECTORY docs examples TYPE DOC COMPONENT program)
install(DIRECTORY include/trident TYPE INCLUDE COMPONENT development)
install(FILES ${archive} TYPE LIB COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/trident.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
    COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/trident-config.cmake
    ${CMAKE_BINARY_DIR}/trident-config-version.cmake DESTINATION ${destination}
    COMPONENT development)
