/** Writes what is documented from the sources: docs/cli.md and docs/process.md. Unit tests fail where they are stale. */
import { writeFileSync } from 'node:fs';
import { criuGuide } from '../src/cli/criu/guide.ts';
import { reference } from '../src/cli/reference.ts';
import { globalFlags, tree } from '../src/cli/tree.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), reference(tree, globalFlags));
writeFileSync(new URL('../docs/process.md', import.meta.url), criuGuide());
