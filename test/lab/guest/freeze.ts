/** Runs in a guest, from a copy of the sources: freezes the file systems, writes its PID to /tmp/frozen, and waits. */
import { writeFileSync } from 'node:fs';
import { freezeFileSystems } from '../../../src/hibernate/filesystems.ts';

using _ = freezeFileSystems();
writeFileSync('/tmp/frozen', `${process.pid}`);
await new Promise((resolve) => setTimeout(resolve, 600_000));
