"""Geometry: forward to the working grid and back, from any orientation, spacing and obliqueness."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from utils.geometry.boxes import Box
from utils.geometry.working_grid import WorkingGrid

# Each order of the axes twice, the second time with all three of them flipped: the axes are resampled one by one.
ORIENTATIONS = ("RAS", "LPI", "LSP", "RIA", "PLS", "ARI", "PIR", "ASL", "SRA", "ILP", "SPR", "IAL")
OBLIQUE = np.linalg.qr(np.array([[1.0, 0.15, -0.1], [-0.15, 1.0, 0.2], [0.1, -0.2, 1.0]]))[0]
OBLIQUE *= np.sign(np.diag(OBLIQUE))
SHAPE = (40, 44, 52)


def make_affine(codes: str, spacing_mm, oblique: bool, shape=SHAPE) -> np.ndarray:
    """An affine of the given codes whose grid is centred at (7, -5, 11) mm."""
    orientation = nib.orientations.axcodes2ornt(codes)
    axes = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(orientation):
        axes[int(world), stored] = sign
    matrix = (OBLIQUE if oblique else np.eye(3)) @ axes * np.asarray(spacing_mm)
    return nib.affines.from_matvec(matrix, np.array([7, -5, 11]) - matrix @ ((np.array(shape) - 1) / 2))


def make_body(affine: np.ndarray, shape=SHAPE) -> np.ndarray:
    """An asymmetric smooth body in HU, the same in the world whatever the grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, index) - np.array([7, -5, 11]), -1, 0)
    body = np.exp(-((x - 3) ** 2 / 120 + (y + 2) ** 2 / 60 + (z - 4) ** 2 / 200))
    knob = np.exp(-((x - 12) ** 2 + (y - 4) ** 2 + (z + 6) ** 2) / 20)
    return np.rint(1500 * np.maximum(body, knob) - 1000).astype(np.int16)


def centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def resampled(array, affine, new_affine, new_shape, order, fill=0):
    """An array brought from grid to grid by scipy and by their affines alone."""
    to_old = np.linalg.inv(affine) @ new_affine
    return affine_transform(array, to_old, output_shape=new_shape, order=order, cval=fill, mode="grid-constant")


def undone(grid: WorkingGrid, array: np.ndarray) -> np.ndarray:
    return np.concatenate([slab for _, slab in grid.undo_slabs(array)], axis=2)


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORIENTATIONS[::2])
def test_forward_and_undo_keep_place_and_shape(codes, oblique):
    affine = make_affine(codes, (0.7, 0.9, 3), oblique)
    image = make_body(affine)
    mask = (image > -500).astype(np.uint8)
    grid = WorkingGrid.isotropic(SHAPE, affine, 1.0)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    np.testing.assert_allclose(grid.spacing_mm, 1.0)

    worked = grid.forward(image, fill=-1000)
    assert worked.dtype == np.int16 and worked.shape == grid.shape
    # The same body drawn on the working grid itself.
    direct = make_body(grid.affine, grid.shape)
    assert dice(worked > -500, direct > -500) > 0.95
    np.testing.assert_allclose(centre_mm(worked > -500, grid.affine), centre_mm(direct > -500, grid.affine), atol=0.25)

    worked_mask = grid.forward(mask, fill=0, nearest=True)
    assert worked_mask.dtype == np.uint8
    back = undone(grid, worked_mask) > 0.5
    assert back.shape == SHAPE
    assert dice(back, mask > 0) > 0.95
    np.testing.assert_allclose(centre_mm(back, affine), centre_mm(mask, affine), atol=0.25)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_grid_of_the_same_spacing_loses_nothing(codes):
    affine = make_affine(codes, (1, 1, 1), oblique=True)
    image = make_body(affine)
    grid = WorkingGrid.isotropic(SHAPE, affine, 1.0)
    np.testing.assert_array_equal(undone(grid, grid.forward(image, fill=0)), image)


@pytest.mark.parametrize("codes", ORIENTATIONS[::2])
@pytest.mark.parametrize("spacing_mm", [(0.73, 0.94, 2.9), (0.31, 2.17, 1.0)])
def test_forward_is_what_scipy_makes_of_smoothing_and_both_affines(codes, spacing_mm):
    shape = (41, 45, 53)  # odd, so that no voxel's middle lies halfway between two
    affine = make_affine(codes, spacing_mm, oblique=True, shape=shape)
    image = np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.int16)
    grid = WorkingGrid.isotropic(shape, affine, 1.0)
    sigma_vox = np.sqrt(np.maximum(1 / np.square(spacing_mm) - 1, 0)) / np.sqrt(8 * np.log(2))
    smoothed = gaussian_filter(image.astype(float), sigma_vox, mode="nearest", truncate=3)
    expected = resampled(np.pad(smoothed, 1, mode="edge"), affine @ SHIFT, grid.affine, grid.shape, order=1)
    assert np.abs(grid.forward(image, fill=0) - expected).max() < 0.6
    labels = np.random.default_rng(1).integers(0, 29, shape).astype(np.uint8)
    nearest = resampled(np.pad(labels, 1, mode="edge"), affine @ SHIFT, grid.affine, grid.shape, order=0)
    np.testing.assert_array_equal(grid.forward(labels, fill=0, nearest=True), nearest)


def test_halfway_between_two_voxels_the_upper_one_is_the_nearest():
    grid = WorkingGrid.isotropic((64, 4, 4), np.diag([0.7, 1, 1, 1]), 1.0)  # 45 voxels: their middle one is halfway
    assert grid.scale[0] * 22 + grid.offset[0] == 31.5
    labels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 4, 4))
    assert grid.forward(labels, fill=0, nearest=True)[22, 0, 0] == 32
    flipped = WorkingGrid.isotropic((64, 4, 4), np.diag([-0.7, 1, 1, 1]), 1.0)
    assert flipped.forward(labels[::-1], fill=0, nearest=True)[22, 0, 0] == 32


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSP"])
def test_a_view_holds_the_whole_scan_padded_to_its_ratio(codes):
    affine = make_affine(codes, (1, 1, 2), oblique=False)
    image = np.full(SHAPE, 100, np.int16)
    grid = WorkingGrid.view(SHAPE, affine, (16, 16, 32))
    view = grid.forward(image, fill=-1000)
    assert view.shape == (16, 16, 32)
    assert np.ptp(grid.spacing_mm) < 1e-9
    ras_extent = np.array(nib.apply_orientation(image, nib.io_orientation(affine)).shape) * np.abs(
        nib.affines.voxel_sizes(affine)[np.argsort(nib.io_orientation(affine)[:, 0])]
    )
    held = (view > -450).sum(axis=(0, 1, 2)) * np.prod(grid.spacing_mm)
    np.testing.assert_allclose(held, np.prod(ras_extent), rtol=0.15)
    assert np.max(ras_extent / (np.array([16, 16, 32]) * grid.spacing_mm)) == pytest.approx(1)
    np.testing.assert_allclose(undone(grid, view)[8:-8, 8:-8, 8:-8], 100, rtol=1e-6)


def test_voxels_of_the_asked_size_lie_about_the_scans_middle():
    shape, affine = (40, 30, 1), nib.affines.from_matvec(np.diag([0.5, 1, 0.6]), [7, -5, 11])
    grid = WorkingGrid.isotropic(shape, affine, 2.0)
    assert grid.shape == (10, 15, 1)  # 20, 30 and 0.6 mm; one voxel is the least
    np.testing.assert_allclose(grid.affine, nib.affines.from_matvec(np.eye(3) * 2, [7.75, -4.5, 11]))


def test_fine_structure_does_not_alias():
    """Stripes finer than the working grid become their mean, not broad stripes."""
    stripes = np.zeros((60, 60, 60), np.int16)
    stripes[::2] = 1000
    view = WorkingGrid.view(stripes.shape, np.eye(4), (9, 9, 18)).forward(stripes, fill=500)
    inner = view[1:-1, 1:-1, 6:12]
    assert np.abs(inner - 500).max() < 60


def test_arrays_of_other_grids_are_refused():
    grid = WorkingGrid.isotropic(SHAPE, np.eye(4), 2.0)
    with pytest.raises(ValueError, match="does not lie"):
        grid.forward(np.zeros((3, 3, 3)), fill=0)
    with pytest.raises(ValueError, match="does not lie"):
        undone(grid, np.zeros(SHAPE))


@pytest.mark.real_scans
def test_real_labels_survive_the_way_to_1_mm_and_back(real_scans):
    for path in sorted((real_scans / "verse_masks").rglob("*_msk.nii.gz")):
        image = nib.load(path)
        mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
        grid = WorkingGrid.isotropic(mask.shape, image.affine, 1.0)
        back = undone(grid, grid.forward(mask, fill=0, nearest=True)) > 0.5
        assert dice(back, mask > 0) > 0.97


def slabs(array, thickness):
    return ((first, array[..., first : first + thickness]) for first in range(0, array.shape[2], thickness))


SHIFT = nib.affines.from_matvec(np.eye(3), [-1, -1, -1])  # of an array that was padded by a voxel
GRIDS = {
    "isotropic": lambda affine: WorkingGrid.isotropic(SHAPE, affine, 1.0),
    "coarse": lambda affine: WorkingGrid.isotropic(SHAPE, affine, 2.5),
    "view": lambda affine: WorkingGrid.view(SHAPE, affine, (16, 16, 32)),
}


@pytest.mark.parametrize(("grid", "codes"), [("isotropic", "RAS"), ("coarse", "ALI"), ("view", "SPR")])
@pytest.mark.parametrize("thickness", [1, 7, 100])
def test_slabs_give_exactly_what_the_whole_gives(grid, codes, thickness):
    affine = make_affine(codes, (0.7, 0.9, 3), oblique=True)
    image = make_body(affine).astype(np.float32) + 0.3
    grid = GRIDS[grid](affine)
    whole = grid.forward(image, fill=-1000)
    seen = np.zeros(grid.shape, int)
    for where, part in grid.forward_parts(slabs(image, thickness), fill=-1000):
        np.testing.assert_array_equal(part, whole[where])
        seen[where] += 1
    assert seen.max() == 1 and (whole[seen == 0] == -1000).all()
    np.testing.assert_array_equal(grid.forward_slabs(slabs(image, thickness), fill=-1000), whole)

    heat = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    back = np.concatenate([slab for _, slab in grid.undo_slabs(heat, thickness)], axis=2)
    np.testing.assert_array_equal(back, undone(grid, heat))
    expected = resampled(np.pad(heat, 1, mode="edge"), grid.affine @ SHIFT, affine, SHAPE, order=1)
    inside = resampled(np.ones(grid.shape), grid.affine, affine, SHAPE, order=0) > 0
    np.testing.assert_allclose(back[inside], expected[inside], atol=1e-4)


def test_a_source_region_by_hand():
    grid = WorkingGrid.isotropic((20, 20, 20), np.eye(4), 2.0)

    def region(start, stop, margin_mm=0):
        return grid.source_region(Box(np.full(3, start), np.full(3, stop)), margin_mm)[0]

    assert region(2, 5) == slice(3, 11)  # the stored voxels 4 to 9, and one on either side to interpolate with
    assert region(2, 5, margin_mm=2) == slice(1, 13)
    assert region(0, 10, margin_mm=2) == slice(0, 20)
    assert region(12, 14) == slice(19, 20) and region(-4, -2) == slice(0, 1)  # beside the scan: its nearest voxel


@pytest.mark.parametrize("codes", ORIENTATIONS[1::2])
def test_a_source_region_is_the_box_in_stored_voxels(codes):
    margin_mm = 6.0
    affine = make_affine(codes, (0.7, 0.9, 3), oblique=True)
    grid = WorkingGrid.view(SHAPE, affine, (16, 16, 32))
    start, stop = np.array([5, 7, 12]), np.array([11, 10, 20])
    region = grid.source_region(Box(start, stop), margin_mm)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    working = nib.affines.apply_affine(np.linalg.inv(grid.affine) @ affine, index)
    margin = margin_mm / grid.spacing_mm
    in_box = ((working >= start - 0.5 - margin) & (working <= stop - 0.5 + margin)).all(axis=-1)
    in_region = np.zeros(SHAPE, bool)
    in_region[region] = True
    assert not (in_box & ~in_region).any()
    where = np.argwhere(in_box)  # and it is tight, to a voxel
    tight = [slice(low - 1, high + 2) for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True)]
    assert all(r.start >= t.start and r.stop <= t.stop for r, t in zip(region, tight, strict=True))


def test_padding_is_told_from_the_scan():
    view = WorkingGrid.view((12, 20, 36), np.diag([-1.0, 1, 1, 1]), (20, 20, 40))  # voxels of 1 mm
    assert view.inside_source == (slice(4, 16), slice(0, 20), slice(2, 38))
    turned = WorkingGrid.view(
        (36, 20, 12), np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]]), (20, 20, 40)
    )
    assert turned.inside_source == view.inside_source


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSA"])
def test_a_part_of_a_grid_has_its_voxels(codes):
    affine = make_affine(codes, (0.7, 0.9, 3), oblique=True)
    grid = WorkingGrid.isotropic(SHAPE, affine, 0.8)
    box = Box(np.array([20, 14, 30]), np.array([25, 20, 36]))
    region = grid.source_region(box, margin_mm=3)
    part = grid.part(box, region)
    corner = grid.affine @ [*box.start, 1]
    np.testing.assert_allclose(part.affine, np.column_stack([grid.affine[:, :3], corner]), atol=1e-9)
    assert part.shape == (5, 6, 6)
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    # To the last bit, as training sees whole scans and inference regions of them.
    np.testing.assert_array_equal(part.forward(image[region], fill=0), grid.forward(image, fill=0)[box.slices])


def test_a_box_is_found_in_another_grid():
    scan = (20, 20, 40), np.diag([-2.0, -2, 2, 1])
    grid = WorkingGrid.isotropic(*scan, 1.0)
    view = WorkingGrid.view(*scan, (20, 20, 44))  # the scan's voxels, and two of padding at both ends
    box, smaller = Box(np.array([4, 0, 60]), np.array([8, 2, 80])), Box(np.array([5, 1, 61]), np.array([7, 2, 62]))
    assert grid.box_in(view, box) == (slice(2, 4), slice(0, 1), slice(32, 42))
    assert grid.box_in(view, smaller) == (slice(2, 4), slice(0, 1), slice(32, 33))
    assert grid.box_in(view, Box(np.array([-4, 0, 60]), np.array([0, 2, 62])))[0] == slice(0, 0)  # beside it
