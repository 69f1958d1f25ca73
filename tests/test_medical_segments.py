"""Names of classes: their SNOMED codes and colours."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from dicom_outputs import FACTS, make_label

from samonai.domains.medical import Volume
from samonai.domains.medical.formats.read_volume import source_name
from samonai.domains.medical.objects.segments import (
    GENERIC,
    _table,
    numbered_colour,
    segment_code,
    segment_of,
    segments_of,
)
from samonai.domains.medical.outputs import write_outputs


def test_every_code_of_the_table_is_dicoms_own() -> None:
    from pydicom.sr._concepts_dict import concepts

    known = {
        (code, meaning)
        for scheme in ("SCT", "FMA")
        for entry in concepts[scheme].values()
        for code, (meaning, _) in entry.items()
    }
    table = _table()
    assert len(table) > 700
    for name, code in table.items():
        assert code.category in known, name
        spelled = {code.type, (code.type[0], code.type[1].lower())}
        assert spelled & known, (name, code.type)
        assert code.type[0] in {c for one in concepts[code.scheme].values() for c in one}
    assert sum(code.colour is not None for code in table.values()) > 140
    assert segment_code("Caudate nucleus").scheme == "SCT"
    lumen = segment_code("lumen of gallbladder")
    assert (lumen.scheme, lumen.type) == ("FMA", ("17891", "Lumen of gallbladder"))


def test_side_case_and_spelling_do_not_matter() -> None:
    kidney = segment_code("Kidney_Left")
    assert kidney.type == ("64033007", "Kidney")
    assert kidney.side == ("7771000", "Left")
    assert segment_code("right kidney").side == ("24028007", "Right")
    assert segment_code("left kidney") == kidney
    assert segment_code("Left Atrium").side is None  # its own code says it
    assert segment_code("liver").type[1] == "Liver"
    assert segment_code("Tumour").category[1] == "Morphologically Abnormal Structure"


def test_what_is_not_known_is_said_to_be_generic() -> None:
    assert segment_code("left") is GENERIC
    assert segment_code("") is GENERIC
    thing = segment_of(7, "thing")
    assert not thing.is_coded
    assert thing.colour == numbered_colour(7)
    assert segment_of(7).name == "class_7"
    assert segment_of(1, "a\nSegment9_Name:=b\\c").name == "a Segment9_Name:=b/c"


def test_only_classes_that_are_there_are_listed() -> None:
    label = np.zeros((2, 3, 4), np.int32)
    label[0, 0, 0], label[1, 2, 3] = 300, 2
    found = segments_of(label, {1: "liver", 2: "spleen"})
    assert [(each.value, each.name) for each in found] == [(2, "spleen"), (300, "class_300")]


def test_nrrd_carries_names_and_colours_for_slicer(tmp_path: Path) -> None:
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    volume = Volume(np.zeros((5, 9, 6), np.float32), affine, "case")
    label = make_label(volume.shape)
    (path,) = write_outputs(volume, label, tmp_path / "case", ["nrrd"], facts=FACTS)
    assert path.name == "case.seg.nrrd"
    assert source_name(path) == "case"
    image = sitk.ReadImage(path)
    assert np.array_equal(sitk.GetArrayFromImage(image).T, label)
    said = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert said["Segment0_Name"] == "kidney_left"
    assert said["Segment0_LabelValue"] == "1"
    assert said["Segment1_LabelValue"] == "3"
    red, green, blue = (float(part) for part in said["Segment0_Color"].split())
    assert (round(red * 255), round(green * 255), round(blue * 255)) == (185, 100, 80)
    assert "SCT~64033007~Kidney~SCT~7771000~Left" in said["Segment0_Tags"]
    assert said["Segment0_Extent"] == "0 4 0 8 0 5"
