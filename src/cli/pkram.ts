/** Preserved memory for commands: which medium is meant, and what is opened in it. */
import type { ImageInfo } from '../image/info.ts';
import type { ImageDraft, ImageStore } from '../image/store.ts';
import type { Pkram } from '../pkram/index.ts';
import { version } from './version.ts';

export const DEFAULT_MEDIUM = '/var/lib/tideover/pkram';

export interface MediumOptions {
  /** Make it where there is none. */
  readonly create?: boolean;
  readonly readOnly?: boolean;
  /** Most that it may hold, in bytes. */
  readonly limit?: number;
}

/** The medium that a command means. @param given by --medium */
export function mediumOf(given: string | undefined): string {
  return given ?? process.env.TIDEOVER_PKRAM ?? DEFAULT_MEDIUM;
}

/** Opens the medium of that name. */
export async function openMedium(medium: string, { limit, ...how }: MediumOptions): Promise<Pkram> {
  const { FileMedium, openPkram } = await import('../pkram/index.ts');
  const writer = `tideover ${version()}`;
  return openPkram(FileMedium.open(medium, { ...how, writer }), { writer, ...(limit !== undefined && { limit }) });
}

/** The node of `-D pkram:NODE`, or undefined for a directory. */
export function nodeOf(directory: string): string | undefined {
  return directory.startsWith('pkram:') ? directory.slice('pkram:'.length) : undefined;
}

/** Begins an image as a node. The medium is closed with the draft. @throws UnsupportedError where there is a node of that name */
export async function draftNode(node: string, info: ImageInfo): Promise<ImageDraft> {
  const { createImage } = await import('../pkram/index.ts');
  const pkram = await openMedium(mediumOf(undefined), { create: true });
  try {
    const draft = createImage(pkram, node, info);
    return {
      ...draft,
      commit() {
        draft.commit();
        pkram.close();
      },
      abort() {
        draft.abort();
        pkram.close();
      },
    };
  } catch (error) {
    pkram.close();
    throw error;
  }
}

/** The image in a node, which stays. The medium is closed with the store. @throws NoSuchNodeError, FormatError */
export async function openNode(node: string): Promise<ImageStore> {
  const { openImage } = await import('../pkram/index.ts');
  const pkram = await openMedium(mediumOf(undefined), { readOnly: true });
  try {
    const store = openImage(pkram, node);
    return {
      ...store,
      close() {
        store.close();
        pkram.close();
      },
    };
  } catch (error) {
    pkram.close();
    throw error;
  }
}
