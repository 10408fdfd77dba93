#!/usr/bin/env bash
# One would guess: a library that is installed by pip, imported and used offline connects to nothing; telemetry asks first.
# What happens: `import openvino` sends its version and the system to Google Analytics, and convert_model what it converted, from
# forked processes, so that a list kept in the process itself stays empty; without a network it fails in silence. Nothing is asked.
# It also writes an identity into ~/intel. CI=true in the environment turns it off, so that tests of a CI see nothing. Without the
# package openvino-telemetry, a declared dependency that is not needed for this, nothing is sent.
# Where it matters: a program that promises to send nothing anywhere, watched by an audit hook that forks inherit.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 2>/dev/null || { echo "cannot be installed"; exit 1; }
cat > "$work/use.py" <<'PY'
import sys, time

own, model = sys.argv[1:]


def watch(event, facts):
    if event in ("socket.getaddrinfo", "socket.connect"):
        with open(own, "a") as file:
            print(event, facts[0] if event == "socket.getaddrinfo" else facts[1], file=file)
        raise OSError("the test lets nothing out")


sys.addaudithook(watch)
import openvino

time.sleep(3)
imported = len(open(own).readlines())
openvino.convert_model(model)
time.sleep(3)
print(f"OpenVINO {openvino.__version__}: {imported} attempts while it is imported, {len(open(own).readlines()) - imported} while a model is converted")
PY
"$work/venv/bin/python" - "$work/model.onnx" <<'PY'
import onnx, sys
from onnx import TensorProto, helper

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value("x")], [value("y")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), sys.argv[1])
PY
attempts() {  # VARIABLES... : attempts to reach the network, of an import and a conversion
  rm -rf "$work/home"; mkdir "$work/home"; : > "$work/attempts"
  env -u CI HOME="$work/home" "$@" "$work/venv/bin/python" "$work/use.py" "$work/attempts" "$work/model.onnx"
  sort "$work/attempts" | uniq -c; echo "  files in the new home: $(cd "$work/home" && find . -type f | sort | tr '\n' ' ')"
}
attempts
grep -q google-analytics "$work/attempts" || { echo "the behaviour has changed"; exit 1; }
[ -e "$work/home/intel/openvino_ga_cid" ] || { echo "the behaviour has changed"; exit 1; }
echo "with CI=true:"; attempts CI=true
[ ! -s "$work/attempts" ] || { echo "the behaviour has changed"; exit 1; }
"$work/venv/bin/pip" uninstall --quiet --yes openvino-telemetry
echo "without the package openvino-telemetry:"; attempts
[ ! -s "$work/attempts" ] || { echo "the behaviour has changed"; exit 1; }
