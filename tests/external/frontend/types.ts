// What the types promise, of both generators: the good lines compile, and the bad ones, each marked, do not.
import * as medisecure from './client';
import type { AppointmentCreate, GetDashboardStatsResponse, LoginError, Role } from './client';
import type { components, paths } from './schema';

type Schemas = components['schemas'];
type Json<T extends { content: { 'application/json': unknown } }> = T['content']['application/json'];
type Login = paths['/api/auth/login']['post'];

// The two agree.
type Same<A, B> = [A, B] extends [B, A] ? true : never;
export const agreed: [
  Same<AppointmentCreate, Schemas['AppointmentCreate']>,
  Same<medisecure.Patient, Schemas['Patient']>,
  Same<medisecure.AuditEvent, Schemas['AuditEvent']>,
  Same<medisecure.PatientUpdate, Schemas['PatientUpdate']>,
] = [true, true, true, true];

export const booking: AppointmentCreate = {
  patientId: '1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05',
  doctorId: '5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02',
  date: '2042-05-20T10:00:00+03:00',
  reason: 'Check-up',
};
// @ts-expect-error  the doctor is missing
export const nobody: AppointmentCreate = { patientId: '', date: '', reason: '' };
// @ts-expect-error  no such role
export const nurse: Role = 'nurse';
// @ts-expect-error  a new appointment is always scheduled
export const closed: AppointmentCreate = { ...booking, status: 'completed' };

export const credentials: Json<NonNullable<Login['requestBody']>> = { email: '', password: '' };
export const role: Json<Login['responses'][200]>['user']['role'] = 'doctor';

// Answers carry every key, null where there is no value.
export const phoneOf = (user: medisecure.User): string => user.phone ?? '';
// @ts-expect-error  it may be null
export const dialled = (user: medisecure.User): string => user.phone;
// @ts-expect-error  only doctors have one
export const fieldOf = (user: medisecure.User): string => user.specialization;

// Every error of every operation is {detail}.
export const said = (error: LoginError | medisecure.CreateAppointmentError): string => error.detail;

export function revenue(stats: GetDashboardStatsResponse): number {
  // @ts-expect-error  only an administrator's figures have it
  const unchecked = stats.revenue;
  return 'revenue' in stats ? stats.revenue : (unchecked ?? 0);
}

// Filters are the contract's, and closed sets are closed.
export const lists = (): Promise<unknown>[] => [
  medisecure.listAppointments({ query: { date: '2042-05-14', status: 'scheduled', page: 1, limit: 10 } }),
  medisecure.listDoctorSlots({ path: { id: booking.doctorId }, query: { date: '2042-05-14' } }),
  // @ts-expect-error  the day is needed
  medisecure.listDoctorSlots({ path: { id: booking.doctorId } }),
  medisecure.listAppointments({
    query: { status: ['scheduled', 'completed'], ids: [booking.patientId], sort: '-date' },
    querySerializer: { array: { explode: false } },
  }),
  // @ts-expect-error  no such order
  medisecure.listPatients({ query: { sort: 'email' } }),
  // @ts-expect-error  no such status
  medisecure.listAppointments({ query: { status: 'open' } }),
  // @ts-expect-error  the id is needed
  medisecure.getPatient({}),
];
