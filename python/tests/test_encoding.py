"""What `ektm prepare` writes, row for row, against the same encoding written again with pandas."""

import json
import os
import random
from collections import Counter

import numpy
import pandas
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from conftest import REPOSITORY
from support import SPLITS, prepare, read_manifest, read_split

MISSING_ROW, OOV_ROW, FIRST_VALUE_ROW = 0, 1, 2
DEFAULT_MISSING = ["", "NA", "NaN", "null", "NULL"]
KUAIRAND = os.path.join(os.environ.get("EKTM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"), "kuairand-pure")


def read_texts(paths):
    """CSV files below each other, every cell the text that stands in the file."""
    frames = [pandas.read_csv(path, dtype="string", keep_default_na=False) for path in paths]
    return pandas.concat(frames, ignore_index=True)


class Reference:
    """Encodes frames of texts. `truths`: task -> function of the frame giving True, False or None a row; default: the label is a
    column of 0 and 1."""

    def __init__(self, schema_text, side_tables, truths=None, observed=None):
        schema = yaml.safe_load(schema_text)
        self.missing = set(schema.get("missing", DEFAULT_MISSING))
        self.features = [{**item, "name": name} for item in schema["features"] for name in item.get("names", [item.get("name")])]
        for feature in self.features:
            feature.setdefault("kind", "id")
            feature.setdefault("column", feature["name"])
            feature.setdefault("table", feature["name"])
        self.tasks = self.parents_first(schema["tasks"])
        self.joins = [(join["key"], side_tables[join["file"]]) for join in schema.get("join", [])]
        self.group, self.scenario, self.weight = (schema.get(role) for role in ("group", "scenario", "weight"))
        self.truths, self.observed = truths or {}, observed or {}

    @staticmethod
    def parents_first(tasks):
        done, rest = [], list(tasks)
        while rest:
            names = [task["name"] for task in done]
            task = next(task for task in rest if task.get("after") is None or task["after"] in names)
            done.append(task)
            rest.remove(task)
        return done

    def join(self, frame):
        """Unmatched keys, and keys that mean missing, get missing cells."""
        for key, side in self.joins:
            new = [column for column in side.columns if column not in frame.columns]
            side = side[~side[key].isin(self.missing)].drop_duplicates(key)
            frame = frame.merge(side[[key, *new]], on=key, how="left")
            frame[new] = frame[new].fillna("")
        return frame

    def cells(self, frame, column):
        """Texts, None where missing."""
        return [None if text in self.missing else text for text in frame[column]]

    def numbers(self, frame, column):
        return numpy.array([numpy.nan if text is None else float(text) for text in self.cells(frame, column)])

    def lists(self, frame, feature):
        limit = feature.get("max_length", 50)

        def split(text):
            if text is None:
                return []
            kept = [part for part in text.split(feature.get("separator", ",")) if part not in self.missing and part != ""]
            return kept[-limit:] if feature["kind"] == "sequence" else kept[:limit]

        return [split(text) for text in self.cells(frame, feature["column"])]

    @staticmethod
    def by_falling_count(counts):
        return sorted(counts, key=lambda value: (-counts[value], value))

    def fit(self, train):
        counts, limits = {}, {}
        self.edges, self.scalings = {}, {}
        for feature in self.features:
            if feature["kind"] == "number":
                values = numpy.sort(self.numbers(train, feature["column"]))
                values = values[~numpy.isnan(values)]
                if feature.get("bins"):
                    self.edges[feature["name"]] = self.quantile_edges(values, feature["bins"])
                else:
                    self.scalings[feature["name"]] = self.scaling(values, feature.get("normalize", "standard"))
            elif not feature.get("hash_buckets"):
                if feature["kind"] == "id":
                    values = [text for text in self.cells(train, feature["column"]) if text is not None]
                else:
                    values = [text for texts in self.lists(train, feature) for text in texts]
                counts.setdefault(feature["table"], Counter()).update(values)
                limits[feature["table"]] = feature.get("min_count", 1)
        self.rows = {}
        for table, seen in counts.items():
            kept = [text for text in self.by_falling_count(seen) if seen[text] >= limits[table]]
            self.rows[table] = {text: FIRST_VALUE_ROW + i for i, text in enumerate(kept)}
        self.scenarios = []
        if self.scenario:
            self.scenarios = self.by_falling_count(Counter(text for text in self.cells(train, self.scenario) if text is not None))

    @staticmethod
    def quantile_edges(values, bins):
        """Edge k: the smallest value with at least k/bins of all values at or below it; left out where it parts nothing."""
        edges = []
        for k in range(1, bins):
            if len(values) == 0:
                break
            edge = values[-(-k * len(values) // bins) - 1]
            if edge < values[-1] and (not edges or edge > edges[-1]):
                edges.append(edge)
        return numpy.array(edges)

    @staticmethod
    def scaling(values, normalize):
        change = (lambda x: numpy.sign(x) * numpy.log1p(numpy.abs(x))) if normalize == "log_standard" else (lambda x: x)
        values = change(values)
        shift, scale = 0.0, 1.0
        if normalize == "minmax":
            shift, scale = values.min(), values.max() - values.min()
        elif normalize != "none":
            shift, scale = values.mean(), values.std()
        return change, shift, scale if values.min() < values.max() else 1.0

    def encode(self, frame):
        """{column: array or list}, as read_split gives it; the hashes of `hash_buckets` and `group` are left to the caller."""
        ids, numbers, bags = [], [], {}
        for feature in self.features:
            name, column = feature["name"], feature["column"]
            if feature["kind"] == "number" and feature.get("bins"):
                values = self.numbers(frame, column)
                ids.append(
                    numpy.where(
                        numpy.isnan(values),
                        MISSING_ROW,
                        FIRST_VALUE_ROW + (self.edges[name][None, :] < values[:, None]).sum(axis=1),
                    )
                )
            elif feature["kind"] == "number":
                change, shift, scale = self.scalings[name]
                values = (change(self.numbers(frame, column)) - shift) / scale
                numbers.append(numpy.where(numpy.isnan(values), 0, values))
            elif feature["kind"] == "id":
                rows = self.rows.get(feature["table"], {})
                ids.append(
                    numpy.array([MISSING_ROW if text is None else rows.get(text, OOV_ROW) for text in self.cells(frame, column)])
                )
            else:
                rows = self.rows[feature["table"]]
                bags["bag." + name] = [
                    [rows.get(text, OOV_ROW) for text in texts] or [MISSING_ROW] for texts in self.lists(frame, feature)
                ]
        labels, observed, self.orphans = [], [], {}
        at = {task["name"]: t for t, task in enumerate(self.tasks)}
        for task in self.tasks:
            truth = self.truth(frame, task)
            reached = numpy.ones(len(frame), bool)
            if task.get("after"):
                parent = at[task["after"]]
                reached = (observed[parent] & labels[parent]).astype(bool)
            known = numpy.array([value is not None for value in truth])
            if task["name"] in self.observed:
                known &= numpy.array([value is True for value in self.observed[task["name"]](frame)])
            happened = numpy.array([value is True for value in truth])
            observed.append((reached & known).astype(numpy.uint8))
            labels.append((reached & known & happened).astype(numpy.uint8))
            self.orphans[task["name"]] = int((~reached & happened).sum())
        encoded = {
            "ids": numpy.stack(ids, axis=1),
            **bags,
            "labels": numpy.stack(labels, axis=1),
            "observed": numpy.stack(observed, axis=1),
        }
        if numbers:
            encoded["numbers"] = numpy.stack(numbers, axis=1)
        if self.weight:
            encoded["weight"] = self.numbers(frame, self.weight)
        if self.scenario:
            places = {text: index for index, text in enumerate(self.scenarios)}
            encoded["scenario"] = numpy.array([places.get(text, -1) for text in self.cells(frame, self.scenario)])
        return encoded

    def truth(self, frame, task):
        if task["name"] in self.truths:
            return self.truths[task["name"]](frame)
        return [None if text is None else {"1": True, "0": False}[text] for text in self.cells(frame, task["label"])]


def expect_same_rows(found, expected):
    for name, values in expected.items():
        if name.startswith("bag."):
            assert [list(bag) for bag in found[name]] == [list(bag) for bag in values], name
        elif values.dtype == float:
            numpy.testing.assert_allclose(found[name], values, rtol=2e-6, atol=2e-6, err_msg=name)
        else:
            numpy.testing.assert_array_equal(found[name], values, err_msg=name)


def expect_hashes_of(groups, texts):
    """Equal texts have equal hashes, different texts different ones."""
    pairs = set(zip(groups.tolist(), texts))
    assert len(pairs) == len({group for group, _ in pairs}) == len({text for _, text in pairs})


def expect_summary(folder, reference, split, encoded):
    summary = json.loads((folder / "summary.json").read_text())
    counts = next(entry for entry in summary["splits"] if entry["split"] == split)
    assert counts["rows"] == len(encoded["labels"])
    for t, entry in enumerate(counts["tasks"]):
        name = reference.tasks[t]["name"]
        found = (entry["task"], entry["observed"], entry["positives"], entry["positives_without_after_event"])
        assert found == (name, encoded["observed"][:, t].sum(), encoded["labels"][:, t].sum(), reference.orphans[name])


# ---------------------------------------------------------------------------------------------------------- a made-up data set

SCHEMA = """
features:
  - {name: user, column: user_id, min_count: 3}
  - {name: hashed, column: user_id, hash_buckets: 7}
  - {name: item, table: items, min_count: 2}
  - {name: history, kind: sequence, table: items, min_count: 2, separator: "|", max_length: 3}
  - {name: tags, kind: ids, separator: "; ", max_length: 2, pooling: sum}
  - {name: price, kind: number, bins: 5}
  - {name: price_as_it_is, column: price, kind: number, normalize: none}
  - {name: age, kind: number}
  - {name: change, kind: number, normalize: log_standard}
  - {name: ratio, kind: number, normalize: minmax}
  - {names: [always_seven, seldom], kind: number, bins: 4}
  - {name: same, column: always_seven, kind: number}
  - {names: [city, climate, nothing]}
  - {name: score, kind: number, bins: 3}
tasks:
  - {name: pay, label: 'paid == "yes"', after: cart}
  - {name: click, label: clicked}
  - {name: cart, label: carts >= 2 or gift, after: click, observed: reported}
  - {name: rated, label: stars > 3}
join:
  - {file: users.csv, key: user_id}
  - {file: cities.csv, key: city}
group: user_id
scenario: place
weight: importance
missing: ["", "NA", "?"]
"""


def kleene_or(a, b):
    return True if a is True or b is True else None if a is None or b is None else False


def truth_of(texts, test):
    return [None if text in ("", "NA", "?") else test(text) for text in texts]


TRUTHS = {
    "pay": lambda frame: truth_of(frame["paid"], lambda text: text == "yes"),
    "cart": lambda frame: [
        kleene_or(a, b)
        for a, b in zip(
            truth_of(frame["carts"], lambda text: float(text) >= 2), truth_of(frame["gift"], lambda text: text in ("1", "true"))
        )
    ],
    "rated": lambda frame: truth_of(frame["stars"], lambda text: float(text) > 3),
}
OBSERVED = {"cart": lambda frame: truth_of(frame["reported"], lambda text: text == "1")}

USERS = [
    "4",
    "07",
    "7",
    "18446744073709551615",
    "-9223372036854775808",
    "9007199254740993",
    "9007199254740992",
    "Zoë",
    "a,b",
    'say "hi"',
    "two\nlines",
    "a b",
    "u13",
    "u14",
    "u15",
    "unknown to the side table",
]


def made_up_rows(count, seed, extra_user):
    rng = random.Random(seed)

    def some(values, missing=0.1):
        return rng.choice(["", "NA", "?"]) if rng.random() < missing else rng.choice(values)

    def listed(values, separator):
        return separator.join(rng.choice([*values, "", "NA"]) for _ in range(rng.randrange(6)))

    items = [f"i{rng.randrange(12)}" for _ in range(50)] + [extra_user]
    return pandas.DataFrame(
        [
            {
                "user_id": some([*USERS, extra_user]),
                "item": some(items),
                "history": listed(items, "|"),
                "tags": listed(["x", "y", "ü", "z z"], "; "),
                "price": some(["1", "1.0", "+2", "3.5", "1e3", "-4.25", "100", "2.5", "0.1"]),
                "age": some([str(n) for n in range(18, 80)]),
                "change": some(["-1000", "-3.5", "0", "2", "1e6"]),
                "ratio": some(["0.25", "0.5", "12"]),
                "always_seven": some(["7"]),
                "seldom": some(["1", "2"], 0.95),
                "nothing": some(["-"], 1),
                "place": some(["feed", "search", "ads"]),
                "importance": rng.choice(["1", "0.5", "2.25", "0"]),
                "clicked": some(["0", "1"], 0.05),
                "carts": some(["0", "1", "2", "3"]),
                "gift": some(["0", "1", "true", "false"]),
                "reported": some(["0", "1", "1", "1"]),
                "paid": some(["yes", "no"]),
                "stars": some(["1", "2", "3", "4", "5"]),
            }
            for _ in range(count)
        ]
    )


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """The raw files, the reference fitted on them, and the frames with side tables joined."""
    folder = tmp_path_factory.mktemp("made_up")
    (folder / "schema.yaml").write_text(SCHEMA)
    rng = random.Random(5)
    users = pandas.DataFrame(
        [
            {
                "user_id": user,
                "city": rng.choice(["Oslo", "Rome", "Lima", "Atlantis", ""]),
                "score": rng.choice(["1", "2", "NA", "9.5"]),
            }
            for user in ["", *USERS[:-1]]
        ]
    )
    cities = pandas.DataFrame([("Oslo", "cold"), ("Rome", "warm"), ("Lima", "NA")], columns=["city", "climate"])
    users.to_csv(folder / "users.csv", index=False)
    cities.to_csv(folder / "cities.csv", index=False)
    files = {
        "train": [folder / "train_1.csv", folder / "train_2.csv.gz"],
        "valid": [folder / "valid.csv"],
        "test": [folder / "test.csv"],
    }
    for number, path in enumerate(path for paths in files.values() for path in paths):
        frame = made_up_rows(500 if "train" in path.name else 200, number, f"only in {path.name}")
        frame.to_csv(path, index=False, compression="infer")
    reference = Reference(SCHEMA, {"users.csv": users.astype("string"), "cities.csv": cities.astype("string")}, TRUTHS, OBSERVED)
    frames = {split: reference.join(read_texts(paths)) for split, paths in files.items()}
    reference.fit(frames["train"])
    return folder, files, reference, frames


@pytest.fixture(scope="module")
def made_up_data(made_up):
    folder, files, _, _ = made_up
    return prepare(folder / "schema.yaml", folder / "data", **files)


def hashed_column(reference):
    """The place of `hashed` in ids."""
    fields = [feature["name"] for feature in reference.features if feature["kind"] == "id" or feature.get("bins")]
    return fields.index("hashed")


@pytest.mark.parametrize("split", SPLITS)
def test_made_up_rows_are_those_of_the_reference(made_up, made_up_data, split):
    _, _, reference, frames = made_up
    expected = reference.encode(frames[split])
    found = read_split(made_up_data, split)
    assert set(found) == set(expected) | {"group"}

    expect_hashes_of(found["group"], reference.cells(frames[split], "user_id"))
    column = hashed_column(reference)
    present = expected["ids"][:, column] != MISSING_ROW
    expected["ids"][present, column] = FIRST_VALUE_ROW + found["group"][present] % 7  # the same hash of the same text
    expect_same_rows(found, expected)
    expect_summary(made_up_data, reference, split, expected)


def test_made_up_data_set_has_the_cases_it_is_for(made_up, made_up_data):
    _, _, reference, frames = made_up
    rows = read_split(made_up_data, "test")
    assert {MISSING_ROW, OOV_ROW} <= set(rows["ids"].ravel()) and (rows["scenario"] == -1).any()
    assert any(OOV_ROW in bag for bag in rows["bag.history"]) and any(list(bag) == [MISSING_ROW] for bag in rows["bag.tags"])
    reference.encode(frames["test"])
    assert min(reference.orphans[name] for name in ("cart", "pay")) > 0
    assert all(0 < rows["labels"][:, t].sum() < rows["observed"][:, t].sum() for t in range(len(reference.tasks)))


def test_manifest_names_fields_tables_tasks_and_scenarios(made_up, made_up_data):
    _, _, reference, _ = made_up
    dataset = read_manifest(made_up_data)["dataset"]
    assert dataset["scenarios"] == reference.scenarios
    assert [(task["name"], task["parent"]) for task in dataset["tasks"]] == [
        ("click", -1),
        ("cart", 0),
        ("pay", 1),
        ("rated", -1),
    ]
    rows = {table["name"]: table["rows"] for table in dataset["tables"]}
    assert rows["items"] == FIRST_VALUE_ROW + len(reference.rows["items"])
    assert rows["user"] == FIRST_VALUE_ROW + len(reference.rows["user"])
    assert rows["hashed"] == FIRST_VALUE_ROW + 7
    assert rows["price"] == FIRST_VALUE_ROW + len(reference.edges["price"]) + 1
    assert {bag["name"]: bag["sum_pooling"] for bag in dataset["bags"]} == {"history": False, "tags": True}


def test_parquet_and_arrow_encode_as_the_csv(made_up, made_up_data, tmp_path):
    """Typed columns: numbers as doubles, flags as bools, lists as lists."""
    folder, files, _, _ = made_up
    missing = ["", "NA", "?"]

    def typed(frame):
        def column(name, kind, convert):
            return pyarrow.array([None if text in missing else convert(text) for text in frame[name]], kind)

        columns = {name: pyarrow.array(list(frame[name]), pyarrow.string()) for name in frame.columns}
        for name in ("price", "change", "ratio", "always_seven", "seldom", "importance"):
            columns[name] = column(name, pyarrow.float64(), float)
        for name in ("age", "stars", "carts"):
            columns[name] = column(name, pyarrow.int16(), int)
        columns["gift"] = column("gift", pyarrow.bool_(), lambda text: text in ("1", "true"))
        columns["clicked"] = column("clicked", pyarrow.int8(), int)
        columns["history"] = pyarrow.array([text.split("|") for text in frame["history"]], pyarrow.list_(pyarrow.string()))
        columns["item"] = columns["item"].dictionary_encode()
        return pyarrow.table(columns)

    typed_files = {}
    for split, paths in files.items():
        table = typed(read_texts(paths))
        if split == "valid":
            typed_files[split] = tmp_path / f"{split}.arrow"
            with pyarrow.ipc.new_file(str(typed_files[split]), table.schema) as writer:
                writer.write_table(table, max_chunksize=64)
        else:
            typed_files[split] = tmp_path / f"{split}.parquet"
            pyarrow.parquet.write_table(table, typed_files[split], row_group_size=97)
    typed_data = prepare(folder / "schema.yaml", tmp_path / "data", **typed_files)
    for split in SPLITS:
        expect_same_rows(read_split(typed_data, split), read_split(made_up_data, split))
    for file in sorted((made_up_data / "encoders").iterdir()):
        assert (typed_data / "encoders" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("ids", [pyarrow.uint64(), pyarrow.int64()])
def test_ids_of_64_bits_keep_every_digit(tmp_path, ids):
    largest = 2**64 - 1 if ids == pyarrow.uint64() else 2**63 - 1
    values = [largest, largest - 1, 2**53, 2**53 + 1, 0] * 40
    table = pyarrow.table({"id": pyarrow.array(values, ids), "click": pyarrow.array([0, 1] * 100, pyarrow.int8())})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    (tmp_path / "schema.yaml").write_text("features: [{name: id}]\ntasks: [{name: click, label: click}]\n")
    order = sorted(set(values), key=str)
    for file in ("rows.parquet", "rows.csv"):
        data = prepare(tmp_path / "schema.yaml", tmp_path / f"data of {file}", train=tmp_path / file)
        assert list(read_split(data, "train")["ids"][:, 0]) == [FIRST_VALUE_ROW + order.index(value) for value in values]


# ------------------------------------------------------------------------------------------------------------------- KuaiRand


@pytest.mark.skipif(not os.path.isdir(KUAIRAND), reason="the folder of KuaiRand-Pure is not there")
def test_kuairand_every_row_and_column(tmp_path):
    schema = REPOSITORY / "configs" / "kuairand" / "schema.yaml"
    files = {split: os.path.join(KUAIRAND, f"impressions_{split}.csv.gz") for split in SPLITS}
    data = prepare(schema, tmp_path / "data", **files)
    side_tables = {name: read_texts([os.path.join(KUAIRAND, name)]) for name in ("users.csv.gz", "videos.csv.gz")}
    reference = Reference(schema.read_text(), side_tables)
    train = reference.join(read_texts([files["train"]]))
    reference.fit(train)
    for split in SPLITS:
        frame = train if split == "train" else reference.join(read_texts([files[split]]))
        expected, found = reference.encode(frame), read_split(data, split)
        assert set(found) == set(expected) | {"group"}
        expect_same_rows(found, expected)
        expect_hashes_of(found["group"], reference.cells(frame, "user_id"))
        expect_summary(data, reference, split, expected)
