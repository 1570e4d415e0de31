export { type Config, readConfig } from './config.ts';
export { type ControlPlane, startControlPlane } from './start.ts';
