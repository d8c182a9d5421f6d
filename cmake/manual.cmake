# cmake -DTRIDENT=program -DOUT=folder -P manual.cmake: the manual pages and what shells complete,
# as the program prints them, laid out as below share/.
function(print file)
    execute_process(COMMAND ${TRIDENT} help ${ARGN} OUTPUT_FILE ${OUT}/${file}
        COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${OUT})
file(MAKE_DIRECTORY ${OUT}/man/man1 ${OUT}/man/man5 ${OUT}/bash-completion/completions
    ${OUT}/zsh/site-functions ${OUT}/fish/vendor_completions.d)
execute_process(COMMAND ${TRIDENT} help OUTPUT_VARIABLE list COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "\n  [a-z_-]+  " lines "${list}")
foreach(line ${lines})
    string(STRIP "${line}" command)
    if(NOT command STREQUAL "help")
        print(man/man1/trident-${command}.1 ${command} --man)
    endif()
endforeach()
print(man/man1/trident.1 --man)
print(man/man5/trident-config.5 config --man)
print(bash-completion/completions/trident --completion bash)
print(zsh/site-functions/_trident --completion zsh)
print(fish/vendor_completions.d/trident.fish --completion fish)
