// The gray scale: percentiles to begin with, one for all volumes unless they are let go.

const BINS = 128;

export class Contrast {
  constructor(volumes, reference) {
    this.volumes = volumes;
    this.reference = reference;
    this.shared = true;
    this.inverted = false;
    this.chosen = reference; // whose the controls show, where each has its own
    this.measured = new Map(); // from the server, by volume, time and channel
    this.set = new Map(); // what stands now, by volume and channel
  }

  async measure(view) {
    await Promise.all(this.volumes.map(async (volume) => {
      const [t, c] = [Math.min(view.t, volume.timepoints - 1), view.c];
      const key = `${volume.name} ${t} ${c}`;
      if (c >= volume.channels.length || this.measured.has(key)) return;
      const query = new URLSearchParams({ volume: volume.name, t, c });
      const answer = await fetch(`window?${query}`);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      this.measured.set(key, await answer.json());
      const place = `${volume.name} ${c}`;
      if (!this.set.has(place)) this.set.set(place, this.auto(volume, view));
    }));
  }

  found(volume, view) {
    const t = Math.min(view.t, volume.timepoints - 1);
    return this.measured.get(`${volume.name} ${t} ${view.c}`);
  }

  knows(view) {
    const shown = this.volumes.filter((volume) => view.c < volume.channels.length);
    return shown.every((volume) => this.found(volume, view));
  }

  auto(volume, view) {
    const found = this.found(volume, view);
    return found ? { low: found.low, high: found.high } : { low: 0, high: 1 };
  }

  owner(volume, view) {
    const shared = this.shared && view.c < this.reference.channels.length;
    return shared ? this.reference : volume;
  }

  of(volume, view) {
    const found = this.set.get(`${this.owner(volume, view).name} ${view.c}`) ?? { low: 0, high: 1 };
    return { ...found, inverted: this.inverted };
  }

  change(volume, view, { low, high }) {
    const integer = volume.dtype !== "float32";
    const least = integer ? 1 : Math.max(1e-9, Math.abs(low) * 1e-6);
    this.set.set(`${this.owner(volume, view).name} ${view.c}`, { low, high: Math.max(high, low + least) });
  }

  // What the sliders span: the percentiles with room around them, and all that stands now.
  domain(view) {
    const shown = this.volumes.filter((volume) => view.c < volume.channels.length);
    const autos = shown.map((volume) => this.auto(volume, view));
    const stand = shown.map((volume) => this.of(volume, view));
    const low = Math.min(...autos.map((w) => w.low));
    const high = Math.max(...autos.map((w) => w.high));
    const room = high - low;
    let [first, last] = [low - room * 0.25, high + room * 0.75];
    if (shown.every((volume) => volume.dtype.startsWith("uint"))) first = Math.max(0, first);
    first = Math.min(first, ...stand.map((w) => w.low));
    last = Math.max(last, ...stand.map((w) => w.high));
    const integer = shown.every((volume) => volume.dtype !== "float32");
    return integer ? [Math.floor(first), Math.ceil(last)] : [first, last];
  }
}

// How often the values of tiles fall into equal parts of a domain; the largest part is 1.
export function histogram(tiles, [first, last]) {
  const counts = new Float64Array(BINS);
  const factor = BINS / (last - first);
  for (const { values } of tiles) {
    const step = Math.max(1, Math.floor(values.length / 16384)) | 1;
    for (let n = 0; n < values.length; n += step) {
      const bin = Math.floor((values[n] - first) * factor);
      if (bin >= 0 && bin < BINS) counts[bin] += 1;
    }
  }
  const most = Math.max(...counts);
  return most ? Array.from(counts, (count) => Math.sqrt(count / most)) : null;
}
