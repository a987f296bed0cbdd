import { lazyPages } from '../commands/lazypages.ts';
import { alone } from './alone.ts';

export { main } from '../app.ts';
export const program = alone(lazyPages);
