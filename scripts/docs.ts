/** Writes what is documented from the sources: docs/cli.md. A unit test fails where it is stale. */
import { writeFileSync } from 'node:fs';
import { reference } from '../src/cli/reference.ts';
import { globalFlags, tree } from '../src/cli/tree.ts';

writeFileSync(new URL('../docs/cli.md', import.meta.url), reference(tree, globalFlags));
