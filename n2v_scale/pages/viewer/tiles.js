// Regions of slices: asked for when they are seen, kept while there is room, coloured when drawn.

export const TILE = 256;
const AT_ONCE = 6; // what a browser opens to one host
const KEPT_BYTES = 256 * 2 ** 20;

const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array,
  uint32: Uint32Array, int32: Int32Array, float32: Float32Array,
};

export class Tiles {
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.kept = new Map(); // the least recently used first
    this.bytes = 0;
    this.coming = new Map();
    this.refused = new Set();
  }

  // The tile, or undefined while it is not there.
  get(key) {
    const tile = this.kept.get(key);
    if (tile) {
      this.kept.delete(key);
      this.kept.set(key, tile);
    }
    return tile;
  }

  has(key) {
    return this.kept.has(key) || this.refused.has(key);
  }

  get busy() {
    return this.coming.size > 0;
  }

  // Fetch these, in this order; what else is on its way is given up.
  want(requests) {
    const wanted = new Set(requests.map((request) => request.key));
    for (const [key, abort] of this.coming) {
      if (!wanted.has(key)) {
        abort.abort();
        this.coming.delete(key);
      }
    }
    for (const request of requests) {
      if (this.coming.size >= AT_ONCE) return;
      if (!this.has(request.key) && !this.coming.has(request.key)) this.fetch(request);
    }
  }

  async fetch({ key, url, dtype, rows, columns }) {
    const abort = new AbortController();
    this.coming.set(key, abort);
    try {
      const answer = await fetch(url, { signal: abort.signal });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const values = new ARRAYS[dtype](await answer.arrayBuffer());
      this.keep(key, { values, rows, columns });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.refused.add(key);
      this.failed(error instanceof TypeError ? "the server does not answer" : error.message);
    }
    if (this.coming.get(key) === abort) this.coming.delete(key);
    this.changed();
  }

  retry() {
    this.refused.clear();
    this.changed();
  }

  keep(key, tile) {
    tile.bytes = tile.values.byteLength + 4 * tile.values.length;
    this.kept.set(key, tile);
    this.bytes += tile.bytes;
    for (const [old, dropped] of this.kept) {
      if (this.bytes <= KEPT_BYTES) break;
      this.kept.delete(old);
      this.bytes -= dropped.bytes;
    }
  }
}

// A tile as an image in gray values, made anew only when the gray scale is another one.
export function coloured(tile, gray) {
  const name = `${gray.low} ${gray.high} ${gray.inverted}`;
  if (tile.colouredAs === name) return tile.image;
  tile.image ??= new OffscreenCanvas(tile.columns, tile.rows);
  const context = tile.image.getContext("2d");
  const picture = context.createImageData(tile.columns, tile.rows);
  const pixels = new Uint32Array(picture.data.buffer);
  const { values } = tile;
  const factor = 255 / (gray.high - gray.low);
  for (let n = 0; n < values.length; n += 1) {
    const raw = (values[n] - gray.low) * factor;
    const clipped = raw > 255 ? 255 : raw > 0 ? Math.round(raw) : 0;
    const level = gray.inverted ? 255 - clipped : clipped;
    pixels[n] = 0xff000000 | (level << 16) | (level << 8) | level;
  }
  context.putImageData(picture, 0, 0);
  tile.colouredAs = name;
  return tile.image;
}
