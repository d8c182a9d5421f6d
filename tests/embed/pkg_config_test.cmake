# cmake -DROOT=R -DTMP=T -P pkg_config_test.cmake: where trident.pc says that the header lies, for
# each way to say where libraries and headers go.
include(${ROOT}/cmake/pkg_config.cmake)
set(CMAKE_INSTALL_PREFIX ${TMP}/pc)
foreach(folders "lib include" "lib/x86_64-linux-gnu include" "lib64 include/sub"
        "${TMP}/pc/else/lib include" "lib ${TMP}/pc/headers")
    string(REPLACE " " ";" folders "${folders}")
    list(GET folders 0 CMAKE_INSTALL_LIBDIR)
    list(GET folders 1 CMAKE_INSTALL_INCLUDEDIR)
    get_filename_component(lib ${CMAKE_INSTALL_LIBDIR} ABSOLUTE BASE_DIR ${TMP}/pc)
    get_filename_component(header ${CMAKE_INSTALL_INCLUDEDIR} ABSOLUTE BASE_DIR ${TMP}/pc)
    trident_pkg_config(${ROOT}/cmake/trident.pc.in ${lib}/pkgconfig/trident.pc)
    foreach(name libdir includedir)
        execute_process(COMMAND pkg-config --variable=${name} ${lib}/pkgconfig/trident.pc
            OUTPUT_VARIABLE ${name} OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
        get_filename_component(${name} ${${name}} ABSOLUTE)
    endforeach()
    if(NOT "${libdir} ${includedir}" STREQUAL "${lib} ${header}")
        message(FATAL_ERROR "found ${libdir} ${includedir}, expected ${lib} ${header}")
    endif()
endforeach()
