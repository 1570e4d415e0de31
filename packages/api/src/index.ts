export * from './bytes.ts';
export * from './errors.ts';
export * from './exec.ts';
export * from './ids.ts';
export * from './network.ts';
export * from './sandbox.ts';
export * from './template.ts';
