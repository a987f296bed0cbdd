/** Action scripts: programs of the user that run at certain moments, with CRIU's names for the moments and in the environment. */
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { TideoverError } from '../../errors.ts';
import { nodeOf } from './images.ts';

export type Moment = 'pre-dump' | 'post-dump' | 'pre-restore' | 'post-restore' | 'pre-resume' | 'post-resume';

/** A script failed. */
export class ScriptError extends TideoverError {
  readonly code = 'script';
}

/**
 * @param scripts are run one after the other
 * @returns runs them all; where one fails it throws ScriptError
 */
export function actionScripts(scripts: readonly string[], imagesDir: string): (moment: Moment, pid?: number) => void {
  if (scripts.length === 0) return () => {};
  const directory = imagesDir === '-' || nodeOf(imagesDir) !== undefined ? imagesDir : resolve(imagesDir);
  return (moment, pid) => {
    const env = {
      ...process.env,
      CRTOOLS_SCRIPT_ACTION: moment,
      CRTOOLS_IMAGE_DIR: directory,
      ...(pid === undefined ? {} : { CRTOOLS_INIT_PID: `${pid}` }),
    };
    for (const script of scripts) {
      // What it prints is no result of ours.
      const { status, signal, error } = spawnSync(script, { env, stdio: ['ignore', 2, 2] });
      if (status === 0) continue;
      const why = error?.message ?? (signal === null ? `it ended with ${status}` : `${signal} ended it`);
      throw new ScriptError(`action script ${script} at ${moment}: ${why}`);
    }
  };
}
