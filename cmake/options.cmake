# Warnings, sanitizers and the one function that declares a folder's library.
add_library(trident_options INTERFACE)
target_compile_options(trident_options INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wundef -Wcast-qual -Wformat=2 -Wdouble-promotion
    -fno-math-errno -ffp-contract=off $<$<BOOL:${TRIDENT_WERROR}>:-Werror>)
target_compile_definitions(trident_options INTERFACE _GNU_SOURCE
    $<$<CONFIG:Debug>:TRIDENT_DEBUG=1>)
target_include_directories(trident_options INTERFACE ${CMAKE_SOURCE_DIR}/src
    ${CMAKE_SOURCE_DIR}/include)
target_link_libraries(trident_options INTERFACE OpenMP::OpenMP_C Threads::Threads m)
# No byte of what is built depends on the folder that it is built in. Of two that fit the last wins.
target_compile_options(trident_options INTERFACE
    -ffile-prefix-map=${CMAKE_BINARY_DIR}=build -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
if(TRIDENT_SANITIZE)
    target_compile_options(trident_options INTERFACE -fsanitize=${TRIDENT_SANITIZE}
        -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(trident_options INTERFACE -fsanitize=${TRIDENT_SANITIZE})
endif()

# trident_library(NAME SOURCES a.c b.c LINK libs...): the static library of one folder of src/.
function(trident_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
    add_library(trident_${name} STATIC ${ARG_SOURCES})
    target_link_libraries(trident_${name} PUBLIC trident_options ${ARG_LINK})
endfunction()
