/** Memory that goes to a page server while it is saved: CRIU's options for it. */
import { UnsupportedError } from '../../errors.ts';
import type { ImageDraft } from '../../image/store.ts';
import type { Flags, FlagValues } from '../command.ts';
import { UsageError } from '../exit.ts';

export const pageServerFlags = {
  pageServer: { long: 'page-server', summary: 'send memory to a page server, and write all else here' },
  address: { long: 'address', value: 'ADDRESS', summary: 'of the page server; 127.0.0.1 if not given' },
  port: { long: 'port', value: 'PORT', summary: 'of the page server' },
} as const satisfies Flags;

/** @param otherwise if none is given @throws UsageError */
export function portOf(text: string | undefined, otherwise: number | undefined): number {
  const port = text === undefined ? otherwise : Number(text);
  if (port !== undefined && Number.isInteger(port) && port >= 0 && port < 65536) return port;
  throw new UsageError(port === undefined ? '--page-server needs --port' : `--port: '${text}' is no port`);
}

/** Memory of the draft goes to the page server, where one is asked for. */
export async function throughPageServer(
  draft: ImageDraft,
  flags: FlagValues<typeof pageServerFlags>,
): Promise<ImageDraft> {
  if (!flags.pageServer) return draft;
  try {
    const { connectPageServer } = await import('../../process/pageconnection.ts');
    const { sendingDraft } = await import('../../image/pagexfer.ts');
    return sendingDraft(draft, await connectPageServer(flags.address ?? '127.0.0.1', portOf(flags.port, undefined)));
  } catch (error) {
    draft.abort();
    throw error;
  }
}

/** @param flags of a command that does not have it @throws UnsupportedError where it is asked for */
export function refusePageServer(flags: Readonly<Record<string, unknown>>, what: string): void {
  if (!flags['page-server'] && !flags.pageServer) return;
  throw new UnsupportedError({
    what: `--page-server of ${what}`,
    why: 'it is not built yet',
    remedy: 'use it with tideover checkpoint, or bring the files yourself',
  });
}
