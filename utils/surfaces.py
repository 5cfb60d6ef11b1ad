"""Surfaces of masks in millimetres: a page that shows a prediction's errors in 3D, and files for a 3D printer.

``python -m utils.surfaces MASK --truth MASK --output FOLDER`` writes both for masks on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.misc import OneLineParser, run_command, written_aside
from verse_utils.errors import UserError
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Finer masks are averaged to about this spacing first: a vertebra's shape needs no more, a browser no more points.
FINEST_MM = 0.75
# Steps of smoothing that take the voxels' stairs away; the two factors are Taubin's, whose second undoes the shrinking.
SMOOTHING_STEPS = 10
_SMOOTHING_FACTORS = (0.5, -0.53)

# What a page may hold of a case: about a megabyte.
PREDICTION_TRIANGLES = 40_000
TARGET_TRIANGLES = 20_000
# Where the colours of errors end: pictures of different cases can be compared.
WORST_MM = 5.0
# Sequential and safe for colour-blind readers (ColorBrewer); what is right is as pale as bone.
ERROR_COLOURS = "YlOrRd"
# Okabe and Ito 2008, without black and the yellow that white paper swallows; neighbours differ.
LABEL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
# The reader looks from the front and a little from the patient's left.
_VIEW = np.array([-0.43, 0.9, 0.1])
_WALL = {"backgroundcolor": "#f6f6f6", "gridcolor": "#dddddd"}
_LIGHT = {
    "lighting": {"ambient": 0.5, "diffuse": 0.6, "specular": 0.05, "roughness": 0.9},
    "lightposition": {"x": 0, "y": 0, "z": 1e5},  # as seen by the viewer, from whom it comes
}


@dataclass(frozen=True)
class Surface:
    """A closed surface of triangles.

    Attributes:
        points_mm: (N, 3) float32, RAS.
        triangles: (M, 3) int32 into the points, counter-clockwise when seen from outside.
    """

    points_mm: np.ndarray
    triangles: np.ndarray

    @property
    def area_mm2(self) -> float:
        """The sum of the triangles' areas."""
        first, second, third = self._corners()
        return float(np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2)

    @property
    def volume_mm3(self) -> float:
        """What the surface holds, by the divergence theorem; negative where its triangles face inwards."""
        first, second, third = self._corners()
        return float(np.einsum("ij,ij->", first, np.cross(second, third)) / 6)

    def _corners(self) -> tuple[np.ndarray, ...]:
        points = self.points_mm.astype(np.float64)
        return tuple(points[self.triangles[:, corner]] for corner in range(3))


def surface_of(mask: np.ndarray, affine: np.ndarray) -> Surface:
    """The surface of a mask, closed at the volume's border too: marching cubes (Lewiner et al. 2003), smoothed.

    Args:
        mask: (I, J, K) bool.
        affine: (4, 4), voxel indices to RAS mm; may be oblique.

    Returns:
        Without points where the mask is empty.
    """
    from nibabel.affines import apply_affine, voxel_sizes
    from skimage.measure import marching_cubes

    inside = np.nonzero(mask)
    if not len(inside[0]):
        return _no_surface()
    first = np.array([axis.min() for axis in inside])
    box = mask[tuple(slice(axis.min(), axis.max() + 1) for axis in inside)]
    steps = np.maximum(np.floor(FINEST_MM / voxel_sizes(affine) + 1e-3), 1).astype(int)
    share = np.pad(_block_means(box, steps), 1)
    if share.max() <= 0.5:  # finer than what is looked at
        return _no_surface()
    vertices, triangles, _, _ = marching_cubes(share, 0.5, gradient_direction="ascent", allow_degenerate=False)
    indices = (vertices - 1) * steps + (steps - 1) / 2 + first
    if np.linalg.det(affine[:3, :3]) < 0:  # stored left-handed: the affine turns the surface inside out
        triangles = triangles[:, ::-1]
    points_mm = _smoothed(apply_affine(affine, indices), triangles)
    return Surface(points_mm.astype(np.float32), np.ascontiguousarray(triangles, np.int32))


def _no_surface() -> Surface:
    return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def _block_means(mask: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Share of foreground in blocks of voxels, float32; zeros fill the last blocks up."""
    padded = np.pad(mask, [(0, -size % step) for size, step in zip(mask.shape, steps, strict=True)])
    split = [part for size, step in zip(padded.shape, steps, strict=True) for part in (size // step, step)]
    return padded.reshape(split).mean(axis=(1, 3, 5), dtype=np.float32)


def _smoothed(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Move points towards their neighbours' mean and back, which flattens only what is as small as a voxel.

    Taubin 1995 (10.1145/218380.218473).
    """
    from scipy.sparse import coo_array

    starts, ends = triangles.ravel(), np.roll(triangles, 1, axis=1).ravel()
    neighbours = coo_array((np.ones(len(starts)), (starts, ends)), shape=(len(points), len(points))).tocsr()
    counts = neighbours.sum(axis=1)[:, None]
    for _ in range(SMOOTHING_STEPS):
        for factor in _SMOOTHING_FACTORS:
            points = points + factor * (neighbours @ points / counts - points)
    return points


def distances_mm(surface: Surface, other: Surface) -> np.ndarray:
    """Distance of each point to the other surface, taken at its corners and the middles of its triangles.

    Args:
        surface: of N points.
        other: not empty.

    Returns:
        (N,) float32, in mm, not negative: how far off, not to which side. Exactly 0 where both surfaces are one. Too
        large by less than half a voxel.
    """
    from scipy.spatial import cKDTree

    middles = other.points_mm[other.triangles].mean(axis=1)
    tree = cKDTree(np.concatenate([other.points_mm, middles]))
    return tree.query(surface.points_mm)[0].astype(np.float32)


def reduced(surface: Surface, most_triangles: int) -> tuple[Surface, np.ndarray]:
    """A surface with a bounded number of triangles: points in one cube become their mean (Rossignac and Borrel 1993).

    Thin parts stay, which coarser voxels would lose, but may end up as two sheets in one place.

    Returns:
        The surface, and for each point of the given one (N,) the index of the point that stands for it.
    """
    members = np.arange(len(surface.points_mm))
    simple = surface
    cube_mm = np.sqrt(2 * surface.area_mm2 / most_triangles)
    while len(simple.triangles) > most_triangles:
        simple, members = _merged(surface, cube_mm)
        cube_mm *= 1.05
    return simple, members


def _merged(surface: Surface, cube_mm: float) -> tuple[Surface, np.ndarray]:
    cubes = ((surface.points_mm - surface.points_mm.min(axis=0)) / cube_mm).astype(np.int64)
    numbers = np.ravel_multi_index(tuple(cubes.T), tuple(cubes.max(axis=0) + 1))
    _, members, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    means = [np.bincount(members, weights=axis) / sizes for axis in surface.points_mm.T]
    triangles = members[surface.triangles]
    first, second, third = triangles.T
    whole = (first != second) & (second != third) & (third != first)
    return Surface(np.stack(means, axis=1).astype(np.float32), triangles[whole].astype(np.int32)), members


def error_figure(prediction: np.ndarray, target: np.ndarray | None, affine: np.ndarray, title: str) -> Figure:
    """A 3D figure: the prediction's surface coloured by its distance to the truth, the truth as a grey veil.

    A click in the legend switches a surface off and on. Distances are absolute, in mm, and end at ``WORST_MM``; what
    was missed altogether is where the veil is alone. Each point bears the largest distance of what it stands for.

    Args:
        prediction: (I, J, K) mask, 0 outside; may be empty, and then the truth is shown alone.
        target: the true mask on the same grid, or None: each label of the prediction gets its own colour.
        affine: (4, 4), to RAS mm.
        title: of the figure.
    """
    from plotly.graph_objects import Figure

    if target is None:
        traces = _label_traces(prediction, affine)
    else:
        traces = _error_traces(surface_of(prediction > 0, affine), surface_of(target > 0, affine))
    figure = Figure(traces)
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        legend={"x": 0, "y": 1, "itemsizing": "constant"},
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        template="plotly_white",
    )
    if traces:
        _set_scene(figure)
    else:
        figure.update_layout(xaxis_visible=False, yaxis_visible=False)
        figure.add_annotation(text="empty: no vertebra", showarrow=False)
    return figure


def _set_scene(figure: Figure) -> None:
    """One scale for all axes, the whole spine in view, letters where right, left, front, back, top and bottom are."""
    from plotly.graph_objects import Scatter3d

    points = [np.stack([trace.x, trace.y, trace.z]) for trace in figure.data]
    low, high = np.min([p.min(axis=1) for p in points], axis=0), np.max([p.max(axis=1) for p in points], axis=0)
    margin = 0.06 * (high - low).max()
    low, high = low - margin, high + margin
    ratio = (high - low) / (high - low).max()
    axes = {
        f"{name}axis": {
            "range": [float(low[n]), float(high[n])],
            "nticks": 3 + int(5 * ratio[n]),
            "title": {"text": "mm"},
            **_WALL,
        }
        for n, name in enumerate("xyz")
    }
    eye = _VIEW * (0.35 + 1.05 * np.linalg.norm(ratio))  # so far that a slim spine and a single vertebra fill the page
    camera = {"eye": dict(zip("xyz", eye.tolist(), strict=True)), "up": {"x": 0, "y": 0, "z": 1}}
    aspect = dict(zip("xyz", ratio.tolist(), strict=True))
    figure.update_layout(scene={**axes, "aspectmode": "manual", "aspectratio": aspect, "camera": camera})
    ends = np.tile((low + high) / 2, (6, 1))
    for axis in range(3):
        ends[2 * axis : 2 * axis + 2, axis] = low[axis] + margin / 2, high[axis] - margin / 2
    ends[:4, 2] = low[2] + margin / 2
    look = {"mode": "text", "textfont": {"size": 16}, "showlegend": False, "hoverinfo": "skip"}
    figure.add_trace(Scatter3d(x=ends[:, 0], y=ends[:, 1], z=ends[:, 2], text=list("LRPAIS"), **look))


def _error_traces(found: Surface, truth: Surface) -> list[Any]:
    traces = []
    if len(found.points_mm):
        simple, members = reduced(found, PREDICTION_TRIANGLES)
        if len(truth.points_mm):
            worst_mm = np.zeros(len(simple.points_mm), np.float32)
            np.maximum.at(worst_mm, members, distances_mm(found, truth))
            colours = {
                "intensity": worst_mm,
                "cmin": 0.0,
                "cmax": WORST_MM,
                "colorscale": ERROR_COLOURS,
                "colorbar": {"title": {"text": "distance to<br>the truth (mm)"}, "len": 0.6, "thickness": 16},
                "hovertemplate": "%{intensity:.1f} mm off the truth<extra></extra>",
            }
        else:
            colours = {"color": LABEL_COLOURS[0], "hoverinfo": "skip"}
        traces.append(_trace(simple, "prediction", **colours))
    if len(truth.points_mm):
        simple, _ = reduced(truth, TARGET_TRIANGLES)
        traces.append(_trace(simple, "truth", color="#888888", opacity=0.25, hoverinfo="skip"))
    return traces


def _label_traces(mask: np.ndarray, affine: np.ndarray) -> list[Any]:
    labels = [label for label in np.unique(mask) if label]
    labels.sort(key=lambda label: ANATOMICAL_ORDER.index(label) if label in ANATOMICAL_ORDER else int(label))
    traces = []
    for position, label in enumerate(labels):
        surface, _ = reduced(surface_of(mask == label, affine), PREDICTION_TRIANGLES // len(labels))
        name = VERTEBRA_NAMES.get(int(label), f"label {label}") if len(labels) > 1 else "mask"
        colour = LABEL_COLOURS[position % len(LABEL_COLOURS)]
        traces.append(_trace(surface, name, color=colour, hovertemplate=f"{name}<extra></extra>"))
    return traces


def _trace(surface: Surface, name: str, **look: Any) -> Any:
    from plotly.graph_objects import Mesh3d

    x, y, z = surface.points_mm.T
    # Plotly stores arrays as they lie in memory: half the page where a triangle's corners fit 16 bits.
    i, j, k = surface.triangles.T.astype(np.uint16 if len(surface.points_mm) < 2**16 else np.int32)
    return Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, name=name, showlegend=True, **_LIGHT, **look)


def write_page(figure: Figure, path: Path) -> None:
    """Write a figure as one HTML file that needs nothing else, plotly.js included; whole or not at all."""
    with written_aside(path) as aside:
        figure.write_html(aside, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})


def write_stl(surface: Surface, path: Path) -> None:
    """Write a surface as binary STL in mm of RAS, for printing; whole or not at all."""
    corners = surface.points_mm[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    records["normal"] = normals / np.maximum(lengths, np.finfo(np.float32).tiny)
    records["corners"] = corners
    with written_aside(path) as aside, aside.open("wb") as stream:
        stream.write(b"surface of a mask, mm, RAS".ljust(80))
        stream.write(np.uint32(len(records)).astype("<u4").tobytes())
        records.tofile(stream)


def main() -> None:
    """Write the page and the STL file of a mask."""
    parser = OneLineParser(description="Write a mask's surface as a 3D page (.html) and for a 3D printer (.stl).")
    parser.add_argument("mask", type=Path, metavar="MASK", help="NIfTI mask: 0 is background")
    parser.add_argument("--truth", type=Path, metavar="MASK", help="true mask on the same grid, to show the errors by")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where <name of MASK>.* go")
    arguments = parser.parse_args()
    from verse_utils.images import check_same_grid, open_image

    mask, affine = _read(arguments.mask)
    target = None
    if arguments.truth is not None:
        target, _ = _read(arguments.truth)
        try:
            check_same_grid(open_image(arguments.mask), open_image(arguments.truth), arguments.mask, arguments.truth)
        except UserError:
            raise UserError(
                f"{arguments.truth}: lies on another grid than {arguments.mask}; resample one of them to the other"
            ) from None
    name = arguments.mask.name.removesuffix(".gz").removesuffix(".nii")
    page, stl = (arguments.output / f"{name}.{ending}" for ending in ("html", "stl"))
    write_page(error_figure(mask, target, affine, name), page)
    write_stl(surface_of(mask > 0, affine), stl)
    print(f"{page}\n{stl}")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from verse_utils.images import open_image, read_mask

    mask = read_mask(path)
    if not mask.any():
        raise UserError(f"{path}: empty, no voxel is a vertebra; give a mask with vertebrae")
    return mask, open_image(path).affine


if __name__ == "__main__":
    run_command(main)
