/** Memory that goes to a page server while it is saved: CRIU's options for it. */
import type { RemotePages } from '../../image/pagexfer.ts';
import type { ImageDraft } from '../../image/store.ts';
import type { CheckpointOptions } from '../../process/stopped.ts';
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

/** How pages that are not in the image are handed out, where that is asked for. */
export async function servedPages(
  io: { info(text: string): void },
  flags: FlagValues<typeof pageServerFlags>,
): Promise<NonNullable<CheckpointOptions['serve']>> {
  const { awaitPageClient } = await import('../../process/pageconnection.ts');
  const { servePages } = await import('../../image/pagexfer.ts');
  const host = flags.address ?? '127.0.0.1';
  const client = await awaitPageClient(host, portOf(flags.port, 0), (port) =>
    io.info(`waiting on ${host} port ${port} for whoever restores the image`),
  );
  return (read) => {
    const connection = client();
    try {
      servePages(connection, read);
    } finally {
      connection[Symbol.dispose]();
    }
  };
}

/** Where the pages are that are not in an image, if that is said. */
export async function remotePages(flags: FlagValues<typeof pageServerFlags>): Promise<RemotePages | undefined> {
  if (!flags.pageServer) return undefined;
  const { connectPageServer } = await import('../../process/pageconnection.ts');
  const { RemotePages } = await import('../../image/pagexfer.ts');
  return new RemotePages(await connectPageServer(flags.address ?? '127.0.0.1', portOf(flags.port, undefined)));
}
