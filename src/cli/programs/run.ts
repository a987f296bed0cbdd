import { run } from '../commands/run.ts';
import { alone } from './alone.ts';

export { main } from '../app.ts';
export const program = alone(run);
