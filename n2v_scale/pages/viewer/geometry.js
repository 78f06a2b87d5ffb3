// Positions along (z, y, x). A world position is in micrometres where the unit is known.

export const ORIENTATIONS = {
  z: { normal: 0, rows: 1, columns: 2, label: "XY" },
  y: { normal: 1, rows: 0, columns: 2, label: "XZ" },
  x: { normal: 2, rows: 0, columns: 1, label: "YZ" },
};

const MICROMETRES = {
  angstrom: 1e-4, picometer: 1e-6, nanometer: 1e-3, micrometer: 1, millimeter: 1e3,
  centimeter: 1e4, meter: 1e6,
};

// Brings all volumes into one world: micrometres, or the reference's voxels where nothing is known.
export function align(volumes, reference) {
  for (const volume of volumes) {
    const factor = MICROMETRES[volume.unit];
    volume.micrometres = factor !== undefined;
    if (factor) transform(volume, [factor, factor, factor], [0, 0, 0]);
  }
  for (const volume of volumes) {
    if (volume !== reference && !volume.micrometres && reference.micrometres) {
      layOver(volume, reference);
    }
  }
}

// A volume without a unit that has the reference's shape is laid over it, voxel by voxel.
function layOver(volume, reference) {
  const [own, other] = [volume.levels[0], reference.levels[0]];
  if (own.shape.some((n, axis) => n !== other.shape[axis])) return;
  const factors = own.scale.map((s, axis) => other.scale[axis] / s);
  transform(volume, factors, own.origin.map((o, axis) => other.origin[axis] - o * factors[axis]));
}

function transform(volume, factors, shift) {
  for (const level of volume.levels) {
    level.scale = level.scale.map((s, axis) => s * factors[axis]);
    level.origin = level.origin.map((o, axis) => o * factors[axis] + shift[axis]);
  }
}

// The first and the last face of a level along an axis, in the world.
export function faces(level, axis) {
  const start = level.origin[axis] - level.scale[axis] / 2;
  return [start, start + level.shape[axis] * level.scale[axis]];
}

// The index of the voxel in which a world position lies; it may be outside.
export function voxelAt(level, axis, world) {
  return Math.floor((world - level.origin[axis]) / level.scale[axis] + 0.5);
}

export function inside(level, axis, index) {
  return index >= 0 && index < level.shape[axis];
}

// The coarsest level that shows all that the screen can: along both axes of the slice its voxels
// are no larger than a pixel, or no larger than the finest ones. `pixel` is in world units.
export function levelFor(volume, orientation, pixel) {
  const finest = volume.levels[0];
  const { rows, columns } = orientation;
  const fits = (level, axis) => level.scale[axis] <= Math.max(pixel, finest.scale[axis]) * 1.001;
  for (let n = volume.levels.length - 1; n > 0; n -= 1) {
    if (fits(volume.levels[n], rows) && fits(volume.levels[n], columns)) return n;
  }
  return 0;
}

// A round length that takes up at most `most` world units: 1, 2 or 5 times a power of ten.
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((n) => n * power <= most) * power;
}

export function lengthText(length, micrometres) {
  if (!micrometres) return `${length.toPrecision(3) * 1} voxels`;
  if (length >= 1000) return `${(length / 1000).toPrecision(3) * 1} mm`;
  if (length < 0.5) return `${(length * 1000).toPrecision(3) * 1} nm`;
  return `${length.toPrecision(3) * 1} µm`;
}
