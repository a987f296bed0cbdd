/** Preserved memory: the public interface, tideover/pkram. */

export { type FileRecord, type FileType, readRecords } from './catalogue.ts';
export { NoRoomError, NoSuchNodeError, OrderError } from './errors.ts';
export { FileMedium, type FileOptions } from './file.ts';
export { FILES_CONTENT, type FilesCount, preserveFiles, restoreFiles } from './files.ts';
export { returnable, returnRanges } from './giveback.ts';
export { HUGE_PAGES, HugePageMedium, type HugePageOptions, holdsHugePages } from './hugepages.ts';
export { createImage, IMAGE_CONTENT, openImage } from './image.ts';
export { KeptMedium } from './kept.ts';
export {
  type LoadedPage,
  type LoadedPages,
  type LoadOptions,
  NodeLoad,
  type NodeLoadOptions,
  NodePeek,
  ObjectLoad,
  ObjectReader,
} from './load.ts';
export { IN_USE } from './lock.ts';
export type { Medium, MediumRange } from './medium.ts';
export type { Node } from './node.ts';
export { PhysicalMedium, type PhysicalOptions } from './physical.ts';
export { type NodeInfo, openPkram, Pkram, type PkramStatus } from './pkram.ts';
export { NodeSave, ObjectSave, type SaveOptions } from './save.ts';
export { Volume, type VolumeOptions } from './volume.ts';
