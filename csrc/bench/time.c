/* A clock that stands, for LD_PRELOAD: Lua seeds its hashes with the time, and what that is worth in instructions
 * differs by several per cent from one second to the next. */

#include <time.h>

time_t time(time_t *seconds)
{
    if (seconds)
        *seconds = 1;
    return 1;
}
