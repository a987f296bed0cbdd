/** docs/process.md: for people who come from CRIU. */
import { markdownTable } from '../reference.ts';
import { type CriuOption, criuOptions } from './options.ts';

const COMMANDS = [
  ['`criu dump`', '`tideover checkpoint`, also called `dump`'],
  ['`criu pre-dump`', '`tideover pre-dump`, or `tideover checkpoint --pre-dump`'],
  ['`criu restore`', '`tideover restore`'],
  ['`criu lazy-pages`', '`tideover lazy-pages`; needed with `--page-server` alone, as a restore starts it by itself'],
  ['`criu check`', '`tideover check`'],
  [
    '`crit show`, `crit decode`',
    '`tideover image show`, `tideover image convert --to json`; crit itself reads the images',
  ],
  ['`coredump`', '`tideover image convert --to core`'],
  ['`criu page-server`', '`tideover page-server`; each takes what the other one sends'],
  ['`criu dedup`', '`tideover image dedup`'],
  ['`service`, `swrk`', 'not yet'],
];

const HABITS = [
  'What cannot be saved is named before anything is stopped, and exit 3 says so. Exit 1 is a failure that changed nothing, 4 one',
  'that did, 5 a damaged image. The reason stands on stderr, not only in a log.',
  '',
  'Images are written under another name, synced and renamed: an image that is there is whole. Each file has its checksum, and a',
  'restore compares them before any process goes on.',
  '',
  'A sleep or poll that was interrupted goes on; CRIU lets it return EINTR. A program may checkpoint itself: see the library,',
  '`tideover/process`.',
  '',
  'Starting Node takes longer than starting CRIU, though not while a program stands still. One that is to be away for a short time is',
  'moved as a stream, `tideover checkpoint -t PID -D - | tideover restore -D - -d`: both are ready before it is stopped. With two',
  'commands it waits for the start of the second one. A restore on the same machine waits until the process ids are free; where the',
  'memory is more than the pipe takes, that of the restore holds it until then. In a PID namespace of their own processes have their ids',
  'for themselves, and nothing is held.',
  '',
  'The stream gets its end when the processes have ended, and no restore goes on without it: they never run twice. They end when the pipe',
  'has taken all before that; who reads it is not asked. If the reader may die, such as ssh with its connection, give the checkpoint',
  '`--action-script FILE`: at `post-dump` all but the end is written and the processes are stopped, so FILE can look whether it has come',
  'to where it is to be, such as the size of a file on the other machine. If it fails, they go on here.',
];

/** The page, in Markdown. */
export function criuGuide(): string {
  const table = (wanted: CriuOption['state'], title: string) => {
    const rows = criuOptions.filter(({ state }) => state === wanted).map((option) => [nameOf(option), option.note]);
    return markdownTable(['Option', title], rows);
  };
  return `${[
    '# For those who come from CRIU',
    '<!-- Made from src/cli/criu by `node scripts/docs.ts`. -->',
    "Images are in CRIU's format, options have CRIU's names. Each option is understood by both commands, as in CRIU.",
    '## Commands',
    markdownTable(['CRIU', 'Here'], COMMANDS),
    '## What is another thing',
    HABITS.join('\n'),
    '## Options that do the same',
    table('same', ''),
    '## Options that are a little different',
    table('differs', 'How'),
    '## Options that change nothing',
    table('nothing', 'Why'),
    '## Options that are not built yet',
    'They are refused with exit 3.',
    table('unbuilt', 'What for'),
  ].join('\n\n')}\n`;
}

function nameOf({ long, short, value, optional, harmless }: CriuOption): string {
  const shown = value === undefined ? '' : optional === undefined ? ` ${value}` : `[=${value}]`;
  const but = harmless === undefined ? '' : ` (but for ${harmless.map((each) => `\`${each}\``).join(', ')})`;
  return `${short === undefined ? '' : `\`-${short}\`, `}\`--${long}${shown}\`${but}`;
}
