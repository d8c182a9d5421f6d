# cmake -DCLANG_FORMAT=… -DSTYLE=….clang-format -DROOT=… -P format.cmake: fails when a file under
# ROOT is not as clang-format would write it.
file(GLOB_RECURSE files ${ROOT}/src/*.[ch] ${ROOT}/include/*.[ch] ${ROOT}/tests/*.[ch]
    ${ROOT}/bench/*.[ch] ${ROOT}/tools/*.[ch])
if(NOT files)
    message(FATAL_ERROR "no sources under ${ROOT}")
endif()
execute_process(COMMAND ${CLANG_FORMAT} --style=file:${STYLE} --dry-run -Werror ${files}
    RESULT_VARIABLE status)
if(NOT status EQUAL 0)
    message(FATAL_ERROR "run clang-format -i on the files above")
endif()
