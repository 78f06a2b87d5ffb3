"""Storage options: what they mean, and that nobody sees them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.errors import ConfigError, InputError
from n2v_scale.io.remote_errors import refuse_credentials
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import normalise, options_for, remember

SECRETS = {
    "key": "AKIDEXAMPLE",
    "secret": "s3cr/et+value",
    "client_kwargs.aws_session_token": "t0k3n",
    "password": 31415926,
}


def test_names_with_dots_are_nested_and_text_gets_its_type() -> None:
    options = StorageOptions.of(
        {
            "anon": "True",
            "key": "007",
            "client_kwargs.region_name": "eu-west-1",
            "config_kwargs": {"retries.max_attempts": "2", "s3": {"addressing_style": "path"}},
            "use_ssl": False,
            "token": None,
        }
    )
    assert options.keywords() == {
        "anon": True,
        "key": "007",  # all digits, and text nevertheless
        "client_kwargs": {"region_name": "eu-west-1"},
        "config_kwargs": {"retries": {"max_attempts": 2}, "s3": {"addressing_style": "path"}},
        "use_ssl": False,
        "token": None,
    }


leaves = st.one_of(st.text("truefals019", max_size=5), st.booleans(), st.integers(), st.none())
segments = st.text("abc_", min_size=1, max_size=2)


@given(st.dictionaries(segments, st.one_of(leaves, st.dictionaries(segments, leaves, min_size=1))))
def test_nested_and_dotted_are_the_same(options: dict[str, Any]) -> None:
    dotted = {
        f"{name}.{inner}" if isinstance(value, dict) else name: leaf
        for name, value in options.items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    }
    made = StorageOptions.of(options)
    assert made == StorageOptions.of(dotted)
    assert hash(made) == hash(StorageOptions.of(dict(reversed(dotted.items()))))
    assert made == StorageOptions.of(made) == pickle.loads(pickle.dumps(made))
    assert StorageOptions.of(made.keywords()) == made
    assert bool(made) == bool(options)


@pytest.mark.parametrize(
    "options", [{"a": "s3cr3t", "a.b": "s3cr3t"}, {"": "s3cr3t"}, {"a.": "s3cr3t"}, {"a..b": "1"}]
)
def test_names_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="storage option") as caught:
        StorageOptions.of(options)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("value", [["s3cr3t"], b"s3cr3t", object(), {"s3cr3t"}])
def test_values_that_are_none(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"storage option 'client_kwargs\.verify'") as caught:
        StorageOptions.of({"client_kwargs": {"verify": value}})
    assert "s3cr3t" not in str(caught.value)


def test_no_text_of_them_shows_a_value() -> None:
    @dataclasses.dataclass
    class Holder:
        storage: StorageOptions

    options = StorageOptions.of(SECRETS)
    holder = Holder(options)
    texts = [repr(options), str(options), f"{options}", repr(holder)]
    texts += [repr(dataclasses.asdict(holder)), repr(copy.deepcopy(options)), repr({options: 1})]
    texts += [repr(pickle.loads(pickle.dumps(options)))]
    for text in texts:
        assert "StorageOptions(client_kwargs.aws_session_token, key, password, secret)" in text
        assert not any(str(value) in text for value in SECRETS.values())
    with pytest.raises(TypeError):
        json.dumps(dataclasses.asdict(holder))
    with pytest.raises(TypeError):
        vars(options)


def test_they_are_frozen() -> None:
    options = StorageOptions.of(SECRETS)
    with pytest.raises(AttributeError, match="frozen"):
        options._items = ()
    with pytest.raises(AttributeError, match="frozen"):
        del options._items
    options.keywords()["key"] = "other"
    assert options.keywords()["key"] == "AKIDEXAMPLE"


def test_redaction() -> None:
    options = StorageOptions.of(
        {**SECRETS, "user": "s3cr", "endpoint_url": "http://s3.org", "config_kwargs.n": 5}
    )
    text = "at http://s3.org with s3cr/et+value and t0k3n, 31415926 by AKIDEXAMPLE, 5 s3cr times"
    assert options.redacted(text) == "at http://s3.org with *** and ***, *** by ***, 5 *** times"
    assert StorageOptions().redacted("at http://me:pw@host/x") == "at http://***@host/x"


def test_the_longest_address_counts() -> None:
    bucket, image, other = (StorageOptions.of({"key": name}) for name in ("b", "i", "o"))
    remember("s3://longest", bucket)
    remember("s3://longest/a/image.zarr/", image)
    remember("s3://longest/a/image.zarr/0", StorageOptions())  # nothing changes
    remember("/longest", other)
    assert options_for("s3://longest/a/image.zarr/0/c/1") == image
    assert options_for("s3://longest/a/image.zarr") == image
    assert options_for("s3://longest/a/image.zarr2") == bucket
    assert options_for("s3://longest/a/") == bucket
    assert options_for("s3://longest") == bucket
    for elsewhere in ("s3://longest2/a", "gs://longest/a", "s3://other", "/longest/a", "s3://"):
        assert options_for(elsewhere) == StorageOptions()
    remember("s3://longest/a/image.zarr", other)
    assert options_for("s3://longest/a/image.zarr/0") == other


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKID:s3cr3t@bucket/out.zarr",
        "s3://AKID:s3/cr3t@bucket/out.zarr",  # a secret with a slash
        "s3://s3cr3t@bucket/out.zarr",
        "gs://me:s3cr3t@bucket/out.zarr",
        "https://me:s3cr3t@host/out.zarr",
        "https://s3cr3t@host:8080/out.zarr",
        "http://me:s3/cr3t@host:8080/out.zarr",
        "https://host/out.zarr?X-Amz-Signature=s3cr3t",
        "sftp://me:s3cr3t@host/out.zarr",
        "abfs://container:s3cr3t@account.dfs.core.windows.net/out.zarr",
        "zip::s3://AKID:s3cr3t@bucket/out.zip",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="holds credentials") as caught:
        normalise(url)
    assert "cr3t" not in str(caught.value)
    assert "AKID" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a@b:c/out.zarr",
        "s3://bucket/what?.zarr",
        "s3://arn:aws:s3:us-west-2:1234:accesspoint/out.zarr",
        "http://127.0.0.1:9000/a@b/out.zarr",
        "http://[::1]/a@b/out.zarr",
        "abfs://container@account.dfs.core.windows.net/out.zarr",
        "sftp://me@host:22/out.zarr",
        "memory://bucket/out.zarr",
        "zip::s3://bucket/out.zip",
    ],
)
def test_an_address_without_is_taken(url: str) -> None:
    refuse_credentials(url)
    assert normalise(f"{url}/") == url
