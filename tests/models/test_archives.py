"""Files of weights: read alike by us and by their makers; damage and malice are refused."""

import collections
import io
import json
import os
import pathlib
import pickle
import struct
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cxr_jax.errors import CheckpointError
from cxr_jax.models import archives, torch_pickle

RNG = np.random.default_rng(0)
ARRAYS = {
    "features.conv0.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "classifier.bias": RNG.standard_normal(5).astype(np.float32),
}


def equal(archive, arrays=ARRAYS):
    assert archive.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert archive.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(archive.arrays[name], array)
    return True


def refused(path, told):
    with pytest.raises(CheckpointError, match=told) as caught:
        archives.read(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert message.startswith(path.name)


# A writer of torch's two formats, so that each byte of them can be bent --------------


class Persistent:
    def __init__(self, pid):
        self.pid = pid


class Named:
    """Pickles as a call of a global that need not exist here."""

    def __init__(self, name, *args):
        self.name, self.args = name, args


class Pickler(pickle._Pickler):
    """The pure one: it can be told to write any global."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Persistent) else None

    def save(self, obj, *args, **kwargs):
        if isinstance(obj, Named):
            self.write(b"c" + "\n".join(obj.name.rsplit(".", 1)).encode() + b"\n")
            if obj.args != (None,):
                super().save(obj.args)
                self.write(b"R")
        else:
            super().save(obj, *args, **kwargs)


def dumps(obj):
    file = io.BytesIO()
    Pickler(file, 2).dump(obj)
    return file.getvalue()


def tensor(key, array, *, size=None, shape=None, stride=None, offset=0, kind="Float"):
    kind = Named(f"torch.{kind}Storage", None)
    count = array.size if size is None else size
    storage = Persistent(("storage", kind, key, "cpu", count))
    steps = tuple(s // array.itemsize for s in array.strides)
    shape, stride = shape or array.shape, stride or steps
    hooks = collections.OrderedDict()
    rebuild = "torch._utils._rebuild_tensor_v2"
    return Named(rebuild, storage, offset, shape, stride, False, hooks)


def state_dict(**bent):
    return {
        name: tensor(str(n), array, **bent)
        for n, (name, array) in enumerate(ARRAYS.items())
    }


def write_zip(path, root=None, *, extra=(), compress=zipfile.ZIP_STORED, raw=None):
    root = dumps(state_dict() if root is None else root) if raw is None else raw
    members = [("w/data.pkl", root), ("w/byteorder", b"little"), ("w/version", b"3\n")]
    members += [(f"w/data/{n}", a.tobytes()) for n, a in enumerate(ARRAYS.values())]
    with zipfile.ZipFile(path, "w", compress) as file:
        for name, data in (*members, *extra):
            file.writestr(name, data)
    return path


def write_stream(path, root=None, *, raw=None, keys=None, head=None, little=True):
    parts = head or [dumps(0x1950A86A20F9469CFC6C), dumps(1001)]
    parts.append(dumps({"little_endian": little}))
    if raw is None:
        raw = dumps(streamed(state_dict() if root is None else root))
    parts.append(raw)
    order = range(len(ARRAYS)) if keys is None else keys
    parts.append(dumps([str(n) for n in order]))
    for n in order:
        array = list(ARRAYS.values())[n]
        parts.append(struct.pack("<q", array.size) + array.tobytes())
    path.write_bytes(b"".join(parts))
    return path


def streamed(root):
    """Storages of the stream carry their view, None for most."""
    for value in root.values():
        if isinstance(value, Named) and isinstance(value.args[0], Persistent):
            value.args[0].pid = (*value.args[0].pid, None)
    return root


def write_safetensors(path):
    safetensors.numpy.save_file(ARRAYS, path, {"format": "pt", "said": "hello"})
    return path


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[f"model_weights/{name}/{name}/kernel:0"] = array
    return path


WRITERS = {
    "safetensors": write_safetensors,
    "zip": write_zip,
    "stream": write_stream,
    "hdf5": write_hdf5,
}


@pytest.fixture
def canary(tmp_path):
    """A file that code in a pickle would create; nobody did when the test is over."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of the file was run"


# What is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "zip", "stream"])
def test_arrays_come_back(kind, tmp_path):
    archive = archives.read(WRITERS[kind](tmp_path / "model.pth.tar"))
    assert equal(archive) and archive.framework == "torch"
    assert archive.metadata.get("said") == ("hello" if kind == "safetensors" else None)


@pytest.mark.parametrize("legacy", [False, True])
def test_arrays_of_torch_itself_come_back(legacy, tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is not installed; see CONTRIBUTING"
    )
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weights = net.state_dict()
    weights["slice"] = torch.arange(24.0).reshape(4, 6)[1:3, ::2]
    weights["turned"] = torch.arange(6.0).reshape(2, 3).T
    weights["scalar"] = torch.tensor(2.5)
    weights["empty"] = torch.zeros(0, 3)
    weights["half"] = torch.tensor([1.5, -2.0], dtype=torch.float16)
    weights["brain"] = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    weights["parameter"] = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3, 8, 8)).sum().backward()
    adam.step()
    saved = {
        "epoch": 3,
        "best": np.float64(0.5),
        "state_dict": weights,
        "optimizer": adam.state_dict(),
    }
    path = tmp_path / "model.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    read = archives.read(path).arrays
    assert read["brain"].dtype == ml_dtypes.bfloat16
    assert read.keys() == weights.keys()
    for name, value in weights.items():
        expected = value.detach().to(torch.float64).numpy()
        assert read[name].shape == expected.shape
        np.testing.assert_array_equal(read[name].astype(np.float64), expected)


def test_parameters_of_torch_before_0_4_are_their_tensors(tmp_path):
    array = ARRAYS["classifier.bias"]
    old = tensor("1", array)
    old = Named("torch._utils._rebuild_tensor", *old.args[:4])
    old = Named("torch.nn.parameter.Parameter", old)
    path = write_zip(tmp_path / "model", {"classifier.bias": old})
    assert equal(archives.read(path), {"classifier.bias": array})


def test_safetensors_in_bfloat16_come_back(tmp_path):
    array = ARRAYS["classifier.bias"].astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"x": array}, tmp_path / "half")
    assert equal(archives.read(tmp_path / "half"), {"x": array})


def test_a_digest_that_was_asked_for_is_held(tmp_path):
    path = write_zip(tmp_path / "model")
    digest = archives.read(path).sha256
    assert archives.read(path, sha256=digest).sha256 == digest
    with pytest.raises(CheckpointError, match="fetch it again"):
        archives.read(path, sha256="f" * 64)


# Malice ------------------------------------------------------------------------------------


def by_reduce(name, *args):
    return dumps({"state_dict": {"x": Named(name, *args)}})


def shell(canary):
    return f"touch {canary}"


def os_system(canary):
    class Attack:
        def __reduce__(self):
            return os.system, (shell(canary),)

    return [
        pickle.dumps({"state_dict": state, "extra": Attack()}, protocol)
        for protocol in range(6)
        for state in ({}, {"weight": Attack()})
    ]


def payloads(canary):
    """Pickles that run code in the standard reader, or would in a careless one."""
    touch, code = shell(canary), f"open({str(canary)!r}, 'w')"
    line = f"{touch}'\ntR."
    inner = pickle.dumps(0)
    unicode = b"X" + struct.pack("<I", len(touch)) + touch.encode()
    short = b"\x8c\x05posix\x8c\x06system\x93"
    dotted = b"\x8c\x08torch.nn\x8c\x13modules.module.exec\x93"
    yield from os_system(canary)
    for name in ("os.system", "posix.system", "nt.system", "subprocess.call"):
        yield by_reduce(name, touch)
    for name in ("builtins.exec", "builtins.eval", "__builtin__.eval"):
        yield by_reduce(name, code)
    yield by_reduce("builtins.getattr", Named("os.path", None), "system")
    yield by_reduce("builtins.__import__", "os")
    yield by_reduce("torch.storage._load_from_bytes", inner)
    yield by_reduce("torch.load", str(canary))
    yield by_reduce("torch.hub.load", "a/b", "c")
    yield by_reduce("torch._utils._import_dotted_name", "os.system")
    yield by_reduce("torch.nn.modules.module.exec", code)
    yield by_reduce("torch.nn.os.system", touch)
    yield by_reduce("torchvision.models.os.system", touch)
    yield by_reduce("torch.nnx.Evil", touch)
    yield by_reduce("operator.attrgetter", "system")
    yield by_reduce("functools.partial", Named("os.system", None), touch)
    yield by_reduce("numpy.load", str(canary))
    yield by_reduce("numpy.testing._private.utils.runstring", code, {})
    yield by_reduce("collections.OrderedDict", [("a", Named("os.system", touch))])
    yield by_reduce("torch._utils._rebuild_tensor_v2", Named("os.system", touch))
    # State that an object would take in: __setstate__ and plain attributes.
    yield b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81cos\nsystem\nb."
    yield b"\x80\x02ccollections\nOrderedDict\n}X\x04\x00\x00\x00evilcos\nsystem\nsb."
    yield b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    # Other instructions that call: INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT, PERSID.
    yield b"(S'" + line.replace("tR.", "ios\nsystem\n.").encode()
    yield b"(cos\nsystem\n" + unicode + b"o."
    yield b"\x80\x02cos\nsystem\n" + unicode + b"\x85\x81."
    yield b"\x80\x04cos\nsystem\n" + unicode + b"\x85}\x92."
    yield b"\x80\x02\x82\x01."
    yield b"\x80\x02Pos.system\n."
    yield b"\x80\x04" + short + unicode + b"\x85R."
    yield b"\x80\x04" + dotted + unicode + b"\x85R."
    yield b"cos\nsystem\n(S'" + line.encode()


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_pickles_that_ask_for_code_are_refused(write, canary, tmp_path):
    count = 0
    for raw in payloads(canary):
        refused(write(tmp_path / "model.pth", raw=raw), "refused|not a whole pickle")
        assert not canary.exists(), raw
        count += 1
    assert count > 40


def test_the_attack_is_real(tmp_path):
    """The standard reader would have run it: the test above proves something."""
    path = tmp_path / "struck"
    pickle.loads(os_system(path)[0])
    assert path.exists()


def test_code_in_the_first_pickles_of_a_stream_is_not_run(canary, tmp_path):
    attack = dumps(Named("os.system", shell(canary)))
    for head in ([attack, dumps(1001)], [dumps(0x1950A86A20F9469CFC6C), attack]):
        refused(write_stream(tmp_path / "model", head=head), "'os.system'")


def test_a_refused_global_is_named(canary, tmp_path):
    path = write_zip(tmp_path / "model", raw=by_reduce("os.system", shell(canary)))
    refused(path, r"asks for 'os\.system'.*nothing in it was run")


def test_whole_models_of_unknown_classes_are_refused(tmp_path):
    raw = b"\x80\x02c__main__\nDenseNet121\n)\x81}b."
    refused(write_zip(tmp_path / "model", raw=raw), r"'__main__\.DenseNet121'")


def test_nothing_below_reads_a_name(tmp_path):
    """Names of layers stand for nothing: no module is imported for them."""
    raw = dumps(Named("torchvision.models.no_such_module.Thing", 1))
    thing = torch_pickle.read(io.BytesIO(raw))
    assert str(thing.name) == "torchvision.models.no_such_module.Thing"


# Lies about sizes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bent",
    [
        {"size": 2**40},
        {"size": 3},
        {"size": -1},
        {"shape": (2**20, 2**20), "stride": (0, 0)},
        {"shape": (2**62,), "stride": (1,)},
        {"shape": (-5,), "stride": (-1,)},
        {"shape": (5,), "stride": (2**30,)},
        {"shape": (2, 3), "stride": (1,)},
        {"offset": 10**6},
        {"offset": -1},
        {"kind": "Double"},
        {"kind": "Evil"},
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_tensors_that_leave_their_storage_are_refused(write, bent, tmp_path):
    refused(write(tmp_path / "model", state_dict(**bent)), "[Ss]torage|tensor|numbers")


def test_one_storage_seen_a_thousand_times_is_refused(tmp_path):
    array = ARRAYS["features.conv0.weight"]
    many = {f"w{n}": tensor("0", array) for n in range(5000)}
    raw = dumps(many)
    path = write_zip(tmp_path / "model", raw=raw)
    refused(path, "tensors of 2160000 bytes in a file of")


def test_what_several_tensors_share_is_read_once(tmp_path, monkeypatch):
    array = ARRAYS["classifier.bias"]
    views = {
        f"x{n}": tensor("1", array, shape=(1,), stride=(1,), offset=n) for n in range(5)
    }
    path = write_zip(tmp_path / "model", views)
    read, seen = zipfile.ZipFile.read, []
    monkeypatch.setattr(
        zipfile.ZipFile,
        "read",
        lambda self, name: (seen.append(name), read(self, name))[1],
    )
    assert equal(archives.read(path), {f"x{n}": array[n : n + 1] for n in range(5)})
    assert seen.count("w/data/1") == 1 and "w/data/0" not in seen


def test_windows_of_one_storage_are_its_parts(tmp_path):
    array, windows = ARRAYS["classifier.bias"], {"a": (0, 2), "b": (2, 3), "c": (1, 3)}
    root = {}
    for name, (start, count) in windows.items():
        root[name] = tensor("1", array, shape=(count,))
        pid = root[name].args[0].pid
        root[name].args[0].pid = (*pid, (f"1:{start}", start, count))
    raw = {"unseen": tensor("0", ARRAYS["features.conv0.weight"])}
    path = write_stream(tmp_path / "model", raw=dumps(streamed(raw) | root))
    read = archives.read(path)
    for name, (start, count) in windows.items():
        np.testing.assert_array_equal(read.arrays[name], array[start:][:count])
    root["c"].args[0].pid = (*pid, ("1:4", 4, 3))
    path = write_stream(tmp_path / "model", raw=dumps(streamed(raw) | root))
    refused(path, "20 bytes instead of 28")


def test_more_tensors_than_any_network_has_are_refused(tmp_path):
    one = tensor("1", ARRAYS["classifier.bias"], shape=(0,), stride=(1,))
    many = dumps({str(n): one for n in range(50_001)})
    refused(write_zip(tmp_path / "model", raw=many), "50001 tensors")


def test_lengths_that_the_file_does_not_have_reserve_nothing(tmp_path):
    for raw in (
        b"\x80\x04\x8d" + struct.pack("<Q", 2**60),
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60),
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1),
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1),
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
    ):
        for write in (write_zip, write_stream):
            refused(write(tmp_path / "model", raw=raw), ".")


def test_nested_keys_and_endless_modules_end(tmp_path):
    nested = b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."
    refused(write_zip(tmp_path / "model", raw=nested), "a tuple as a key")
    # Each module holds the next one twice: 2^60 of them.
    empty = {"_parameters": {}, "_buffers": {}}
    layer = b"ctorch.nn.modules.container\nSequential\n)\x81"
    body, tail = b"\x80\x02", b""
    start = dumps(empty)[2:-1]
    for n in range(60):
        memo = struct.pack("<I", 1000 + n)
        state = start + b"X\x08\x00\x00\x00_modules}"
        if n:
            last = b"j" + struct.pack("<I", 999 + n)
            state += b"X\x01\x00\x00\x00a" + last + b"sX\x01\x00\x00\x00b" + last + b"s"
        body += layer + state + b"sbr" + memo
    refused(write_zip(tmp_path / "model", raw=body + tail + b"."), "more modules than")


NESTED = b")" + b"2\x86" * 60  # 2^60 empty tuples in 121 bytes
STORAGE = b"(X\x07\x00\x00\x00storage%sX\x01\x00\x00\x001X\x03\x00\x00\x00cpuK\x05t"
FLOATS = STORAGE % b"ctorch\nFloatStorage\n"


@pytest.mark.parametrize(
    "body",
    [
        STORAGE % NESTED,
        STORAGE % (b"\x85" + NESTED) + b"Q",
        STORAGE % NESTED + b"Q",
        NESTED + b"Q",
        NESTED + b"\x85Q",
        b"(X\x06\x00\x00\x00module" + NESTED + b"tQ",
        FLOATS.replace(b"K\x05t", NESTED + b"t") + b"Q",
        FLOATS.replace(b"t", NESTED + b"t") + b"Q",
        *(
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + FLOATS + b"Q" + view + b"tR"
            for view in (
                b"K\x00" + NESTED + NESTED,
                b"K\x00" + NESTED + b"\x85" + NESTED + b"\x85",
                b"K\x00K\x05\x85" + NESTED + b"\x85",
                NESTED + b"K\x05\x85K\x01\x85",
            )
        ),
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + NESTED * 4 + b"tR",
        b"ccollections\nOrderedDict\n" + NESTED + b"\x85R",
        b"ctorch\nSize\n" + NESTED + b"R",
        NESTED + b"R",
        b"ctorch.nn.modules.linear\nLinear\n)\x81" + NESTED + b"b",
        NESTED + NESTED + b"b",
        NESTED + b"K\x01a",
        NESTED + b"K\x01K\x01s",
        b"}(" + NESTED + b"K\x01u",
        b"(" + NESTED + b"K\x01d",
        NESTED + b"X\x01\x00\x00\x00a\x93",
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_nothing_nested_is_walked(write, body, tmp_path):
    """Hashing, comparing or printing 2^60 of anything would never end."""
    for around in (b"%s", b"}X\x01\x00\x00\x00x%ss"):
        refused(write(tmp_path / "model", raw=b"\x80\x04" + around % body + b"."), ".")


@pytest.mark.parametrize("place", range(5))
def test_nothing_nested_is_walked_in_any_pickle_of_a_stream(place, tmp_path):
    parts = [dumps(0x1950A86A20F9469CFC6C), dumps(1001), dumps({"little_endian": True})]
    parts += [dumps(streamed(state_dict())), dumps(["0", "1"])]
    for bad in (
        NESTED,
        b"](" + NESTED + b"e",
        b"}X\x0d\x00\x00\x00little_endian" + NESTED + b"s",
    ):
        parts[place] = b"\x80\x02" + bad + b"."
        (tmp_path / "model").write_bytes(b"".join(parts))
        refused(tmp_path / "model", ".")


def test_numbers_of_one_hash_are_refused(tmp_path):
    """A dict of n of them takes n² comparisons; 2^61 - 1 is where hashes come round."""
    for number in (2**61 - 1, -(2**61 - 1) * 7, 10**300):
        raw = b"\x80\x02}" + pickle.dumps(number, 2)[2:-1] + b"K\x01s."
        refused(write_zip(tmp_path / "model", raw=raw), "60 bits as a key")
        raw = b"\x80\x02}p" + str(number).encode() + b"\n."
        refused(write_zip(tmp_path / "model", raw=raw), "counts its objects")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"}X\xe9\x03\x00\x00" + b"k" * 1001 + b"K\x01s", "a key of 1001"),
        (b"ctorch.nn\nA" + b"a" * 10**6 + b"\n", "asks for 'torch.nn.A"),
        (b"ctorch\nSize\n(" + b"N" * 9 + b"tR", "of 9 arguments"),
        (b"(" + b"N" * 9 + b"tQ", "9 values"),
        (b"F" + b"x" * 10**6 + b"\n", "not a whole pickle"),
    ],
)
def test_what_is_too_long_to_see_again_and_again_is_refused(raw, told, tmp_path):
    refused(write_zip(tmp_path / "model", raw=b"\x80\x02" + raw + b"."), told)


def test_modules_that_share_large_parts_are_refused(tmp_path):
    """Two hundred modules with one dict of a thousand arrays are no small file."""
    one = tensor("1", ARRAYS["classifier.bias"])
    shared = {f"p{n}": one for n in range(1000)}
    for part in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
        held = shared if part[-1] == "s" else list(shared)
        root = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        body = dumps(root)[2:-1]
        layer = b"ctorch.nn.modules.container\nSequential\n)\x81"
        raw = b"\x80\x02" + dumps(held)[2:-1] + b"r\x00\x00\x01\x000"
        given = (
            b"X" + struct.pack("<I", len(part)) + part.encode() + b"j\x00\x00\x01\x00s"
        )
        raw += layer + body + b"X\x08\x00\x00\x00_modules}("
        for n in range(200):
            name = f"m{n}".encode()
            raw += (
                b"X" + struct.pack("<I", len(name)) + name + layer + body + given + b"b"
            )
        refused(write_zip(tmp_path / "model", raw=raw + b"usb."), "more modules than")


def test_a_name_with_ends_of_lines_is_told_in_one(tmp_path):
    refused(write_zip(tmp_path / "model", {"a\nb": 1}), "a b")


def test_a_pickle_cannot_grow_by_calling(tmp_path):
    """A list of a million, a million times: the machine would need 8 TB for copies."""
    for name in (b"ctorch\nSize\n", b"cbuiltins\nset\n"):
        body = b"\x80\x02](" + b"N" * 10**5 + b"eq\x00" + name + b"q\x01"
        body += b"(" + b"h\x01h\x00\x85R" * 10**5 + b"l."
        refused(write_zip(tmp_path / "model", raw=body), "a list was saved")
    pairs = b"\x80\x02](K\x01K\x02\x86eq\x00ccollections\nOrderedDict\nq\x01"
    body = pairs + b"(h\x01h\x00\x85Rh\x01h\x00\x85Rl."
    assert torch_pickle.read(io.BytesIO(body)) == [{1: 2}, {}]


# Zips that lead elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("../../canary", b"x"), "leads out"),
        (("/etc/canary", b"x"), "leads out"),
        (("C:\\canary", b"x"), "leads out"),
        (("w\\..\\..\\canary", b"x"), "leads out"),
        (("v/data.pkl", b"N."), "one data.pkl"),
        (("w/code/__torch__.py", b"import os"), "TorchScript"),
    ],
)
def test_strange_members_are_refused(extra, told, canary, tmp_path):
    refused(write_zip(tmp_path / "model", extra=[extra]), told)


def test_compressed_and_double_members_are_refused(tmp_path):
    deflated = write_zip(tmp_path / "model", compress=zipfile.ZIP_DEFLATED)
    refused(deflated, "compressed")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "model", extra=[("w/data/0", b"x")])
    refused(path, "twice")


def test_big_endian_files_are_refused(tmp_path):
    path = write_zip(tmp_path / "model")
    path.write_bytes(path.read_bytes().replace(b"little", b"bigbig"))
    refused(path, "big-endian|damaged")
    refused(write_stream(tmp_path / "model", little=False), "big-endian")


def test_a_stream_with_another_list_of_storages_is_refused(tmp_path):
    refused(write_stream(tmp_path / "model", keys=[0]), "list of storages")


# HDF5 that points elsewhere --------------------------------------------------------------


def secret(folder):
    with h5py.File(folder / "secret.h5", "w") as file:
        file["array"] = np.arange(4.0)
    (folder / "raw.bin").write_bytes(bytes(64))
    return folder / "secret.h5"


def external_link(file, folder):
    file["layer/kernel"] = h5py.ExternalLink(str(secret(folder)), "/array")


def soft_link(file, folder):
    file["a/kernel"] = np.ones(3)
    file["b"] = h5py.SoftLink("/a")


def external_storage(file, folder):
    secret(folder)
    raw = [(str(folder / "raw.bin"), 0, 64)]
    file.create_dataset("layer/kernel", (8,), "f8", external=raw)


def virtual(file, folder):
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(secret(folder)), "array", (4,))
    file.create_virtual_dataset("layer/kernel", layout)


def giant(file, folder):
    file.create_dataset("layer/kernel", (2**40,), "f4", chunks=(1024,))


def words(file, folder):
    file["layer/kernel"] = np.array([b"code", b"here"], dtype=object)


def circle(file, folder):
    file["a/b/kernel"] = np.ones(3)
    file["a/b/a"] = file["a"]


def doubled(file, folder):
    file["x/layer/kernel"] = np.ones(3)
    file["y/layer/kernel"] = np.ones(3)


@pytest.mark.parametrize(
    ("bend", "told"),
    [
        (external_link, "link elsewhere"),
        (soft_link, "link elsewhere"),
        (external_storage, "other files"),
        (virtual, "other files"),
        (giant, "cannot hold"),
        (words, "not numbers"),
        (circle, "linked twice"),
        (doubled, "two arrays"),
    ],
)
def test_hdf5_reads_nothing_but_itself(bend, told, tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        bend(file, tmp_path)
    refused(tmp_path / "model.h5", told)


def test_the_state_of_an_optimiser_is_passed_over(tmp_path):
    path = write_hdf5(tmp_path / "model.h5")
    before = archives.read(path).arrays.keys()
    with h5py.File(path, "a") as file:
        file["optimizer_weights/adam/kernel"] = np.ones(3)
    assert archives.read(path).arrays.keys() == before


# Damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_cut_short_is_refused(kind, tmp_path):
    path = WRITERS[kind](tmp_path / "model")
    whole = path.read_bytes()
    for part in (0.0, 0.05, 0.3, 0.5, 0.8, 0.95):
        path.write_bytes(whole[: int(part * len(whole))])
        refused(path, ".")
    path.write_bytes(whole[:-1])
    refused(path, ".")


@pytest.mark.parametrize("kind", WRITERS)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
@example(places=[])
def test_no_damage_is_anything_but_a_refusal(kind, places, tmp_path):
    path = WRITERS[kind](tmp_path / "model")
    raw = bytearray(path.read_bytes())
    for place, value in places:
        raw[int(place * (len(raw) - 1))] = value
    path.write_bytes(raw)
    try:
        archives.read(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00" * 64, b"<html>not found</html>", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"],
)
def test_other_files_are_refused(raw, tmp_path):
    (tmp_path / "model.pth").write_bytes(raw)
    refused(tmp_path / "model.pth", "no known format|damaged")


@pytest.mark.parametrize(
    "header",
    [
        b'{"x":{"dtype":"F32","shape":[1048576,1048576],"data_offsets":[0,16]}}',
        b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}',
        (
            b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
            b'"y":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
        ),
        b'{"x":{"dtype":"F99","shape":[4],"data_offsets":[0,16]}}',
        b'{"x":' + b"[" * 200_000,
        b'{"__metadata__":' + b'{"a":' * 200_000,
    ],
)
def test_safetensors_that_lie_are_refused(header, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(path, "damaged")
    path.write_bytes(struct.pack("<Q", 2**60) + header + bytes(16))
    refused(path, "damaged")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        archives.read(pathlib.Path("nowhere.pth"))


@pytest.mark.parametrize("begins", [0x4780, 0x7980, 0x4B50])
def test_a_header_whose_length_looks_like_another_format_is_read(tmp_path, begins):
    """The first bytes are 0x80, as in torch's stream, or ``PK``, as in a zip file."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    text = json.dumps(header).encode().ljust(begins)
    path = tmp_path / "w.safetensors"
    path.write_bytes(begins.to_bytes(8, "little") + text + array.tobytes())
    found = archives.read(path)
    np.testing.assert_array_equal(found.arrays["w"], array)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cut off"):
        archives.read(path)
