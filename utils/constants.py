"""Numbers that training and inference must agree on."""

# Intensities: HU are clipped to this range, then divided by HU_PER_UNIT, in training as in inference.
# -1000 HU is air; cortical bone seldom exceeds 1500 HU, metal does and is cut off.
HU_RANGE: tuple[int, int] = (-1000, 1500)
HU_PER_UNIT = 1000.0
HU_AIR = -1000

# The grid on which vertebrae are segmented and scored (VerSe's protocol), in mm.
SEGMENTATION_SPACING_MM = 1.0

# Views and patches in voxels along X, Y, Z of RAS; the body's long axis is last.
HEATMAP_SHAPE: tuple[int, int, int] = (64, 64, 128)
SEGMENTATION_SHAPE: tuple[int, int, int] = (128, 128, 128)

# σ of the heatmap around the spine's mask ("distance") and around the vertebrae's centres ("gaussian"). That of
# "distance" puts 0.5 between 1 and 2 voxels from the mask, so the box around all values above 0.5 has a margin of one.
HEATMAP_SIGMA_VOX = {"distance": 1.2, "gaussian": 3.0}

# How much training scans are changed at random: data_transforms/presets.py.
AUGMENTATIONS = ("light", "strong")

# σ of the heatmap of each named vertebra around the centre of its body; at least a voxel of the view. Neighbours lie
# 15 mm apart in the neck, the least distance: their heatmaps meet at 0.5.
NAMES_SIGMA_MM = 6.0
# Of the Gaussian that shows a segmenter which vertebra it is to find.
SHOWN_SIGMA_MM = 8.0

# Patches may hang over the scan's upper and lower end by so many voxels of air. A vertebra that the end cuts is usually
# not annotated in VerSe; only a network that sees where the scan ends can learn that.
OVERHANG_VOX: tuple[int, int, int] = (0, 0, 16)

# Slices of a scan that are in memory at a time when it is read slab by slab.
SLAB_SLICES = 16

# Connected components of a whole scan's mask with less volume are no whole vertebra and are dropped. The smallest
# vertebra of a phantom, a C3, has 5.5 cm³; the smallest whole one of six VerSe scans, a T9, has 28 cm³.
LEAST_COMPONENT_MM3 = 5000.0
