// The test vector of an export: does this browser compute the map that the Python driver computed?

/** How far the map is from the test map, as text; no text if the explanation is not that of the test vector. */
export async function compared({ test }, file, subject, { fill, target }, { map, class: [chosen] }) {
  if (!file || subject.name !== test.image || target !== test.target || !fill.every((number) => number === test.fill)) return "";
  if (file.size !== map.length * 4) return `${file.name}: ${file.size} bytes, expected ${map.length * 4}, so it is not compared.`;
  const view = new DataView(await file.arrayBuffer());
  const expected = Float32Array.from(map, (_, index) => view.getFloat32(4 * index, true));
  const known = [...expected.keys()].filter((index) => !Number.isNaN(expected[index]));
  const largest = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);
  const range = largest(known.map((index) => expected[index])) + largest(known.map((index) => -expected[index]));
  const difference = largest(known.map((index) => Math.abs(map[index] - expected[index]))) / range;
  const passed = difference <= test.tolerance && Number(chosen) === test.chosen;
  const found = `largest difference ${difference.toPrecision(2)} of its range at ${known.length} positions, class ${chosen}`;
  return `Test vector: ${found}: `
    + (passed ? "passed." : `failed; expected at most ${test.tolerance}, and class ${test.chosen}.`);
}
