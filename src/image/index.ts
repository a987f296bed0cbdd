/**
 * Checkpoint images, in CRIU's format: the public interface, tideover/image. It only reads and writes files, on any platform.
 *
 *     import { openDirectory, readTree } from 'tideover/image';
 *
 *     for (const { pid } of readTree(openDirectory('/var/tmp/image')).tasks) console.log(pid);
 */
export { FormatError, TideoverError, UnsupportedError, VerifyError } from '../errors.ts';
export { type CheckedStore, checkedStore } from './checked.ts';
export { createDirectory, type DirectoryOptions, openDirectory, openFile } from './directory.ts';
export { type CoreOutput, writeCore } from './elfcore.ts';
export { type ImageRecord, ImageWriter, readBlob, readEntries, readEntry, records, writeEntries } from './file.ts';
export { IMAGE_FORMAT, type ImageInfo } from './info.ts';
export { imageToJson, jsonToImage, storeFromJson, storeToJson } from './json.ts';
export { type Extent, MemoryImage, PAGE_SIZE, PageRuns, type VmaEntry } from './pages.ts';
export type { Writers } from './partial.ts';
export { type Description, describe, type MappingDescription, render, type TaskDescription } from './show.ts';
export {
  copySource,
  type ImageDraft,
  type ImageStore,
  MemoryStore,
  readWhole,
  type Sink,
  type Source,
} from './store.ts';
export { createStream, openStream } from './stream.ts';
export {
  entriesOf,
  entryOf,
  type ImageTask,
  type ImageThread,
  type ImageTree,
  readInfo,
  readTree,
} from './tree.ts';
export { fileName, type ImageType, images, pagesFile, typeOfFile } from './types.ts';
export { verify } from './verify.ts';
