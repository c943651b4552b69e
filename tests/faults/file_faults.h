/* Counts the calls of libc that change files, and lets chosen ones fail or end the process. A
 * program gets it by LD_PRELOAD, and what to do from the environment:
 *   FAULT_PATH   text in the paths that matter; without it nothing is counted
 *   FAULT_CALL   number of the first call that fails, from 1; 0, or none: calls are only counted
 *   FAULT_COUNT  how many fail from there on; 0: all; none: 1
 *   FAULT_DO     before the call is carried out: kill, stop, segv, abort (signals), exit0;
 *                instead of it: enospc, eio, erofs (a descriptor is closed nevertheless);
 *                short: half of a write
 *   FAULT_ONLY   names of the calls that count, separated by commas; none: all
 *   FAULT_RANK   the rank of MPI where it happens; none: everywhere
 *   FAULT_LOG    file that gets a line of each counted call: its name and path
 * It sees the streams of C++, and not what libc does inside (fwrite, fputs).
 */
#ifndef FILE_FAULTS_H
#define FILE_FAULTS_H

#ifdef __cplusplus
extern "C" {
#endif

/* For tests that are linked with it: `what` is as in FAULT_DO; counting begins anew. */
void file_faults_arm(const char* path_text, int call, const char* what);
int file_faults_counted(void);

#ifdef __cplusplus
}
#endif

#endif
