export * from './errors.ts';
export * from './gen/hostagent_pb.ts';
