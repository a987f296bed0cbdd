/** Writes what is documented from the sources: docs/cli.md, docs/process.md, and the numbers of docs/state.md. Unit tests fail where they are stale. */
import { readFileSync, writeFileSync } from 'node:fs';
import { criuGuide } from '../src/cli/criu/guide.ts';
import { globalFlags } from '../src/cli/globals.ts';
import { reference } from '../src/cli/reference.ts';
import { tree } from '../src/cli/tree.ts';
import { summary } from '../test/state.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), reference(tree, globalFlags));
writeFileSync(new URL('../docs/process.md', import.meta.url), criuGuide());

const state = new URL('../docs/state.md', import.meta.url);
writeFileSync(state, readFileSync(state, 'utf8').replace(/^In numbers: .*$/m, summary()));
