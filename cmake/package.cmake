# cpack -G DEB in a release's build folder: trident_VERSION_ARCH.deb and, for programs that embed
# it, libtrident-dev. What Debian's policy wants of such files and `cmake --install` has no use for
# is done by debian_layout.cmake, in the folder that cpack packs.
set(CPACK_PACKAGE_NAME trident)
set(CPACK_PACKAGE_VENDOR "The Trident developers")
set(CPACK_PACKAGE_CONTACT "The Trident developers <maintainers@trident.invalid>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_GENERATOR DEB)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL program development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ
    GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME trident)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_RECOMMENDS openmpi-bin)
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION
"trainer of mixture-of-experts language models on CPU clusters
Trident trains mixture-of-experts language models over MPI, without Python or
a framework. It cuts a model over tensor, expert and data ranks; one rank or
many, the same global batch gives the same loss and the same gradients. Models
of Hugging Face (Mixtral, OLMoE, Qwen, Llama, GPT-2) are read and written.

This package has the program, its manual pages, completions for shells, the
documentation and examples.")

string(REPLACE "," ";" requirements
    "libc6-dev,libopenmpi-dev,libdnnl-dev,libhwloc-dev,libjansson-dev,libyaml-dev,libxxhash-dev")
list(APPEND requirements libpcre2-dev libutf8proc-dev zlib1g-dev libzstd-dev libprotobuf-c-dev)
list(JOIN requirements ", " CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libtrident-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
"library that trains mixture-of-experts models, for programs of one's own
Trident trains mixture-of-experts language models over MPI. A program can hold
such a model, train it on rows of tokens and ask it for losses and logits.

This package has the headers, the static library and what pkg-config and CMake
read.")

set(TRIDENT_DEBIAN ${CMAKE_SOURCE_DIR}/tools/packaging/debian)
configure_file(cmake/debian_layout.cmake.in ${CMAKE_BINARY_DIR}/debian_layout.cmake @ONLY)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_BINARY_DIR}/debian_layout.cmake)
include(CPack)
