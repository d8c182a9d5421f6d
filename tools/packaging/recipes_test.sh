#!/bin/bash
# tools/packaging/recipes_test.sh: each recipe read by the tool that it is for, where that tool is:
# EasyBuild's framework and Singularity's recipe parser from PyPI (a virtual environment that is
# removed again), Lmod and Environment Modules from Debian (lmod, and modulecmd.tcl named by
# MODULECMD). Nothing is built. Spack is in neither: its recipe is compiled as Python, no more. One
# line for each; ends with "N recipes read, N not tried".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT
export HOME=$work PYTHONDONTWRITEBYTECODE=1
read=0 untried=0

fail() {
    echo "recipes_test: $*" >&2
    exit 1
}

pass() {
    read=$((read + 1))
    echo "read: $*"
}

skip() {
    untried=$((untried + 1))
    echo "not tried: $*"
}

mkdir -p "$work/lua/trident" "$work/tcl/trident"
cp "$here/modules/trident.lua" "$work/lua/trident/0.1.0.lua"
cp "$here/modules/trident.tcl" "$work/tcl/trident/0.1.0"

# loads MODULE-TOOL COMMAND…: what it prints for bash sets TRIDENT_ROOT and PATH
loads() {
    local tool=$1
    shift
    (
        eval "$("$@" bash load trident/0.1.0)"
        [ "${TRIDENT_ROOT-}" = /opt/trident/0.1.0 ] && [[ $PATH == /opt/trident/0.1.0/bin:* ]]
    ) || fail "$tool does not load it"
    pass "module file by $tool"
}

lmod=${LMOD_CMD-/usr/share/lmod/lmod/libexec/lmod}
if [ -x "$lmod" ]; then
    MODULEPATH=$work/lua loads "Lmod (Lua)" "$lmod"
    MODULEPATH=$work/tcl loads "Lmod (Tcl)" "$lmod"
else
    skip "Lmod: apt-get install lmod"
fi
modulecmd=${MODULECMD-/usr/lib/x86_64-linux-gnu/modulecmd.tcl}
if [ -e "$modulecmd" ] && command -v tclsh >/dev/null; then
    MODULEPATH=$work/tcl loads "Environment Modules" tclsh "$modulecmd"
else
    skip "Environment Modules: apt-get install environment-modules, which excludes lmod"
fi

python3 -m venv "$work/venv"
if "$work/venv/bin/pip" install -q easybuild-framework easybuild-easyblocks pycodestyle spython \
    >"$work/pip.log" 2>&1; then
    cat >"$work/parse.py" <<'END'
import sys
from easybuild.tools.options import set_up_configuration

set_up_configuration(args=["--ignore-osdeps", "--allow-use-as-root-and-accept-consequences",
                           "--modules-tool=" + sys.argv[2]], silent=True)
from easybuild.framework.easyconfig.easyconfig import EasyConfig, get_easyblock_class
from easybuild.framework.easyconfig.style import check_easyconfigs_style

config = EasyConfig(sys.argv[1], validate=True)
get_easyblock_class(config["easyblock"])
assert check_easyconfigs_style([sys.argv[1]]) == 0
print(config.name, config.version, config["toolchain"], len(config.dependencies()))
END
    if [ -x "$lmod" ]; then
        said=$(LMOD_CMD=$lmod "$work/venv/bin/python" "$work/parse.py" \
            "$here"/easybuild/*.eb Lmod 2>&1) || fail "EasyBuild: $said"
        pass "EasyBuild's recipe, its easyblock and style: $(tail -n 1 <<<"$said")"
    else
        skip "EasyBuild without Lmod"
    fi
    "$work/venv/bin/spython" recipe --parser singularity --writer docker \
        "$here/apptainer/trident.def" >"$work/docker" 2>&1 || fail "$(cat "$work/docker")"
    grep -q 'trident_0.1.0-1_amd64.deb' "$work/docker" || fail "$(cat "$work/docker")"
    pass "Apptainer's definition, by spython: $(grep -c '^RUN' "$work/docker") commands"
else
    skip "EasyBuild, Apptainer: $(tail -n 1 "$work/pip.log")"
fi
python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$here/spack/package.py" ||
    fail "the Spack recipe is no Python"
if command -v spack >/dev/null; then
    spack repo create "$work/repo" trident_check >/dev/null
    mkdir -p "$work/repo/packages/trident"
    cp "$here/spack/package.py" "$work/repo/packages/trident/"
    spack -C "$work" repo add "$work/repo" >/dev/null
    spack -C "$work" spec trident >/dev/null || fail "spack spec trident"
    pass "Spack's recipe, concretized"
else
    skip "Spack, which is no Debian or PyPI package; the recipe is Python"
fi
echo "$read recipes read, $untried not tried"
