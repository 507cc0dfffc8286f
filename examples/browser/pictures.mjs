// What the model looks at: pictures, decoded in the browser without resizing, and images as raw numbers.
const PNG = [0x89, 0x50, 0x4e, 0x47], PNG_DEPTH = 24; // where a PNG says its bits a channel

async function refuseWhatWouldChange(file) {
  const head = new Uint8Array(await file.slice(0, PNG_DEPTH + 1).arrayBuffer());
  if (PNG.every((byte, index) => head[index] === byte) && head[PNG_DEPTH] === 16)
    throw new Error(`${file.name}: has 16 bits a channel, which a browser cuts to 8; convert it to 8 bits`);
  if (!("ImageDecoder" in globalThis) || !(await ImageDecoder.isTypeSupported(file.type))) return;
  const decoder = new ImageDecoder({ type: file.type, data: await file.arrayBuffer() });
  await decoder.tracks.ready.catch(() => null); // what cannot be read is refused where it is decoded
  const frames = decoder.tracks.selectedTrack?.frameCount ?? 1;
  decoder.close();
  if (frames > 1) throw new Error(`${file.name}: has ${frames} frames; save the frame to explain as a picture of its own`);
}

function pixelsOf(bitmap, name) {
  const { width, height } = bitmap, context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const read = () => context.getImageData(0, 0, width, height).data;
  context.drawImage(bitmap, 0, 0);
  const pixels = read();
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
  if (!read().every((value, index) => value === pixels[index])) // protection against fingerprinting alters what is read
    throw new Error(`${name}: this browser alters the pixels of pictures that a page reads; allow this page to read canvases`);
  return pixels;
}

/** A picture file: uint8 [H, W, 3] (RGB) as `data` and `shape`, and a canvas that shows it.
 *
 * Rotated as its EXIF data say; its colour profile is ignored. Throws an Error if the file cannot be read, is transparent or
 * animated, or would lose bits.
 */
export async function readPicture(file) {
  await refuseWhatWouldChange(file);
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" }).catch(() => {
    throw new Error(`${file.name}: is no picture that this browser can read, or is damaged; try a PNG or JPEG file`);
  });
  const { width, height } = bitmap, pixels = pixelsOf(bitmap, file.name), data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4, to += 3) {
    if (pixels[from + 3] !== 255) throw new Error(`${file.name}: has transparent pixels; flatten it onto a background first`);
    data.set(pixels.subarray(from, from + 3), to);
  }
  return { name: file.name, data, shape: [height, width, 3], shown: canvasOf(pixels, width, height) };
}

function canvasOf(pixels, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

/** An image as raw little-endian float32 numbers in `shape` [1, C, H, W]; `preprocessing`, if known, tells how to show it. */
export async function readImage(file, shape, preprocessing) {
  const expected = shape.reduce((a, b) => a * b) * 4;
  if (file.size !== expected)
    throw new Error(`${file.name}: ${file.size} bytes, expected ${expected}: float32 numbers in the shape [${shape}]`);
  const view = new DataView(await file.arrayBuffer());
  const data = Float32Array.from({ length: expected / 4 }, (_, index) => view.getFloat32(4 * index, true));
  if (!data.every(Number.isFinite)) throw new Error(`${file.name}: holds numbers that are not finite, so it is no float32 image`);
  const [, channels, height, width] = shape, pixels = new Uint8ClampedArray(height * width * 4).fill(255);
  const toPixel = preprocessing ? backOf(preprocessing) : stretched(data);
  const order = channels !== 3 ? [0, 0, 0] : preprocessing?.channel_order === "BGR" ? [2, 1, 0] : [0, 1, 2];
  for (let pixel = 0; pixel < height * width; pixel++)
    order.forEach((channel, shown) => { pixels[4 * pixel + shown] = toPixel(data[channel * height * width + pixel], channel); });
  return { name: file.name, data, shape, shown: canvasOf(pixels, width, height) };
}

const backOf = ({ scale, mean, std }) => (value, channel) => (value * std[channel] + mean[channel]) / scale;

function stretched(data) {
  const lowest = data.reduce((low, value) => Math.min(low, value)), highest = data.reduce((high, value) => Math.max(high, value));
  return (value) => ((value - lowest) / (highest - lowest || 1)) * 255;
}
