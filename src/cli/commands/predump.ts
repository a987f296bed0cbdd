import { command } from '../command.ts';
import { imageFlags } from '../criu/images.ts';
import { ABOUT_OTHERS, otherOptions } from '../criu/options.ts';
import { pageServerFlags } from '../criu/pageserver.ts';
import { preDumpInto, treeFlags } from '../criu/predump.ts';

const flags = { ...treeFlags, ...imageFlags, ...pageServerFlags };

export const predump = command({
  name: 'pre-dump',
  group: 'Processes',
  summary: 'Write the memory of processes while they run, so that their checkpoint takes a moment',
  description: [
    'They are stopped for some milliseconds, whatever their size. From then on it is watched what they write, and the next ' +
      'pre-dump or checkpoint that names this one with --prev-images-dir saves nothing else. A small process (tideover-track) ' +
      'stays until they end: if it is killed, the next image is a whole one, and says so.',
    'Where the kernel has it (6.7), pages are protected against writing in a way that programs do not see; else soft-dirty ' +
      'bits tell. A kernel with neither is refused.',
    ABOUT_OTHERS,
    'With --json: {"processes", "memory" (bytes), "unchanged" (bytes in the image before), "unwatched" (whether nobody has ' +
      'watched since that one), "frozen" (ms)}.',
  ],
  flags: { ...flags, ...otherOptions(flags) },
  exits: {
    0: 'The memory is written.',
    3: 'The kernel does not tell what is written, or a privilege is missing.',
  },
  examples: [
    { line: 'tideover pre-dump -t 1234 -D /var/tmp/1', does: 'write most of the memory' },
    {
      line: 'tideover checkpoint -t 1234 -D /var/tmp/2 --prev-images-dir ../1',
      does: 'then the rest, and end the processes',
    },
  ],
  run: (io, { flags }) => preDumpInto(io, flags),
});
