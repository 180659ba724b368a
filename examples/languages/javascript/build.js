// node build.js [OUT]: makes the component of match.js. Every feature of the engine that would need WASI is off: a node has none.
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { componentize } from '@bytecodealliance/componentize-js';

const out = process.argv[2] ?? 'conformance.wasm';
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { component } = await componentize({
  sourcePath: here('match.js'),
  witPath: process.env.ROOKERY_WIT ?? here('../../../wasm-sdk/wit/match.wit'),
  worldName: 'match-logic',
  disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
console.log(`${out} ${component.length} bytes`);
