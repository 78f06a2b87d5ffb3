// Reads every level of an OME-Zarr over HTTP with zarrita, as viewers in the browser do, and prints
// each as JSON: shape, type, the SHA-256 of the values in little-endian, and how often ranges were asked.
// node decode.mjs PATH-OF-ZARRITA URL

import { createHash } from "node:crypto";

const [library, url] = process.argv.slice(2);
const zarr = await import(library);

let ranges = 0;
const ask = globalThis.fetch;
globalThis.fetch = (place, options) => {
  const headers = new Headers(options?.headers ?? place.headers);
  if (headers.has("Range")) ranges += 1;
  return ask(place, options);
};

const group = await zarr.open(new zarr.FetchStore(url), { kind: "group" });
const { multiscales } = group.attrs.ome ?? group.attrs;
const levels = [];
for (const { path } of multiscales[0].datasets) {
  const array = await zarr.open(group.resolve(path), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  levels.push({ path, shape, dtype: array.dtype, sha256 });
}
console.log(JSON.stringify({ levels, ranges }));
