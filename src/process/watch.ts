/**
 * How far a checkpoint or restore has come, by the bytes that go into or come out of the image. Whoever is told may throw: that
 * is as if writing or reading had failed, so that everything is undone.
 */
import type { ImageDraft, ImageStore, Sink, Source } from '../image/store.ts';

/** @param bytes of the image so far */
export type Watch = (bytes: number) => void;

/** @param step is called before every part that is written */
export function watchDraft(draft: ImageDraft, step: Watch): ImageDraft {
  let bytes = 0;
  const create: ImageDraft['create'] = (file, size) => {
    step(bytes);
    const sink = draft.create(file, size);
    const write: Sink['write'] = (part) => {
      step(bytes);
      sink.write(part);
      bytes += part.length;
    };
    return { ...sink, write };
  };
  return { ...draft, create };
}

/** @param step is called before every part that is read */
export function watchStore(image: ImageStore, step: Watch): ImageStore {
  let bytes = 0;
  const watchSource = (source: Source): Source => ({
    name: source.name,
    size: source.size,
    read(into, position) {
      step(bytes);
      const got = source.read(into, position);
      bytes += got;
      return got;
    },
    close: () => source.close(),
  });
  const watch = (store: ImageStore): ImageStore => ({
    name: store.name,
    ...(store.forwards === true && { forwards: true }),
    ...(store.takeAll !== undefined && { takeAll: () => store.takeAll!() }),
    names: () => store.names(),
    has: (file) => store.has(file),
    open: (file) => watchSource(store.open(file)),
    parent() {
      const parent = store.parent?.();
      return parent && watch(parent);
    },
    close: () => store.close(),
  });
  return watch(image);
}
