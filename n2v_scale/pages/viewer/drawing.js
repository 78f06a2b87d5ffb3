// One volume's slice on a canvas: which tiles are seen, and what of them is there.

import { faces, inside, levelFor, voxelAt } from "./geometry.js";
import { TILE, coloured } from "./tiles.js";

// Where the screen's edges are in the world: {left, top, pixel} in device pixels.
export function frameOf(canvas, view, orientation) {
  const pixel = view.pixel / devicePixelRatio;
  return {
    pixel,
    left: view.centre[orientation.columns] - (canvas.width / 2) * pixel,
    top: view.centre[orientation.rows] - (canvas.height / 2) * pixel,
  };
}

// The tiles of one level that are seen, those in the middle first.
export function seenTiles(volume, number, view, orientation, canvas) {
  const level = volume.levels[number];
  const { normal, rows, columns } = orientation;
  const index = voxelAt(level, normal, view.centre[normal]);
  if (!inside(level, normal, index)) return [];
  const frame = frameOf(canvas, view, orientation);
  const span = (axis, start, length) => {
    const first = Math.max(0, voxelAt(level, axis, start));
    const last = Math.min(level.shape[axis] - 1, voxelAt(level, axis, start + length));
    return [Math.floor(first / TILE), Math.floor(last / TILE)];
  };
  const [top, bottom] = span(rows, frame.top, canvas.height * frame.pixel);
  const [left, right] = span(columns, frame.left, canvas.width * frame.pixel);
  const found = [];
  for (let row = top; row <= bottom; row += 1) {
    for (let column = left; column <= right; column += 1) {
      found.push(tileAt(volume, number, view, orientation, index, row, column));
    }
  }
  const off = (tile) => Math.hypot(tile.row - (top + bottom) / 2, tile.column - (left + right) / 2);
  return found.sort((a, b) => off(a) - off(b));
}

function tileAt(volume, number, view, orientation, index, row, column) {
  const level = volume.levels[number];
  const start = [row * TILE, column * TILE];
  const stop = [
    Math.min(start[0] + TILE, level.shape[orientation.rows]),
    Math.min(start[1] + TILE, level.shape[orientation.columns]),
  ];
  const query = new URLSearchParams({
    volume: volume.name, level: number, t: Math.min(view.t, volume.timepoints - 1), c: view.c,
    axis: view.axis, index, box: [...start, ...stop].join(","),
  });
  return {
    key: query.toString(), url: `tile?${query}`, dtype: volume.dtype, level: number, row, column,
    start, stop, rows: stop[0] - start[0], columns: stop[1] - start[1],
  };
}

// What is to be fetched for a volume: something coarse to begin with, then what is seen.
export function neededTiles(volume, view, orientation, canvas) {
  const target = levelFor(volume, orientation, view.pixel / devicePixelRatio);
  const coarsest = volume.levels.length - 1;
  const wanted = seenTiles(volume, target, view, orientation, canvas);
  const first = seenTiles(volume, coarsest, view, orientation, canvas);
  return { target, wanted, first: first.length < wanted.length ? first : [] };
}

// Draws what is there, coarse below fine, and returns how much of the wanted level it was.
export function drawVolume(context, volume, view, orientation, tiles, gray) {
  const { canvas } = context;
  const { target, wanted } = neededTiles(volume, view, orientation, canvas);
  const there = wanted.filter((request) => tiles.kept.has(request.key)).length;
  const coarse = there < wanted.length;
  for (let n = coarse ? volume.levels.length - 1 : target; n >= target; n -= 1) {
    const requests = n === target ? wanted : seenTiles(volume, n, view, orientation, canvas);
    for (const request of requests) {
      const tile = tiles.get(request.key);
      if (tile) drawTile(context, volume.levels[n], request, tile, view, orientation, gray);
    }
  }
  return { level: target, there, wanted: wanted.length };
}

function drawTile(context, level, request, tile, view, orientation, gray) {
  const frame = frameOf(context.canvas, view, orientation);
  const edge = (axis, index, start) =>
    Math.round((faces(level, axis)[0] + index * level.scale[axis] - start) / frame.pixel);
  const x = edge(orientation.columns, request.start[1], frame.left);
  const y = edge(orientation.rows, request.start[0], frame.top);
  const right = edge(orientation.columns, request.stop[1], frame.left);
  const bottom = edge(orientation.rows, request.stop[0], frame.top);
  context.imageSmoothingEnabled = right - x < tile.columns || bottom - y < tile.rows;
  context.drawImage(coloured(tile, gray), x, y, right - x, bottom - y);
}

// The value under a world position in the level that is shown, or undefined.
export function valueAt(volume, point, view, orientation, canvas, tiles) {
  const { target } = neededTiles(volume, view, orientation, canvas);
  const level = volume.levels[target];
  const at = point.map((world, axis) => voxelAt(level, axis, world));
  if (at.some((index, axis) => !inside(level, axis, index))) return undefined;
  const [row, column] = [at[orientation.rows], at[orientation.columns]];
  const places = [Math.floor(row / TILE), Math.floor(column / TILE)];
  const request = tileAt(volume, target, view, orientation, at[orientation.normal], ...places);
  const tile = tiles.kept.get(request.key);
  if (!tile) return undefined;
  const value = tile.values[(row % TILE) * tile.columns + (column % TILE)];
  return { value, exact: target === 0 };
}

// The URL of one voxel of the finest level, or null where the position is outside.
export function voxelUrl(volume, point, view, orientation) {
  const level = volume.levels[0];
  const at = point.map((world, axis) => voxelAt(level, axis, world));
  if (at.some((index, axis) => !inside(level, axis, index))) return null;
  const [row, column] = [at[orientation.rows], at[orientation.columns]];
  const query = new URLSearchParams({
    volume: volume.name, level: 0, t: Math.min(view.t, volume.timepoints - 1), c: view.c,
    axis: view.axis, index: at[orientation.normal], box: [row, column, row + 1, column + 1].join(","),
  });
  return `tile?${query}`;
}
