/* A recipe that says when its first instruction ran: nanoseconds of CLOCK_MONOTONIC, on stdout or
 * into the file that it is given. Linked statically, so that little happens before `main`. */
#include <stdio.h>
#include <time.h>

int main(int count, char **arguments)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (count > 1 && !freopen(arguments[1], "w", stdout))
        return 1;
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
