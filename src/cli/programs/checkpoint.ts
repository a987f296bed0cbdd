import { checkpoint } from '../commands/checkpoint.ts';
import { alone } from './alone.ts';

export { main } from '../app.ts';
export const program = alone(checkpoint);
