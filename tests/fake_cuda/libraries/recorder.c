/* libfake_cuda.so: the record that the stand-ins for CUDA's libraries write and recorder.py reads.

   It stands in for no library. Records are in the order in which the host made the calls; a device would execute them later. */
#define _GNU_SOURCE
#include "recorder.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct record *records;
static uint64_t count;
static uint64_t capacity;

static char **texts;
static size_t text_count;
static size_t text_capacity;

API void fake_record(struct record record)
{
    pthread_mutex_lock(&lock);
    if (count == capacity) {
        capacity = capacity ? 2 * capacity : 4096;
        records = realloc(records, capacity * sizeof *records);
    }
    records[count++] = record;
    pthread_mutex_unlock(&lock);
}

static char *interned(char *text)
{
    for (size_t i = 0; i < text_count; i++) {
        if (!strcmp(texts[i], text)) {
            free(text);
            return texts[i];
        }
    }
    if (text_count == text_capacity) {
        text_capacity = text_capacity ? 2 * text_capacity : 64;
        texts = realloc(texts, text_capacity * sizeof *texts);
    }
    return texts[text_count++] = text;
}

API const char *fake_text(const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        abort();
    va_end(arguments);
    pthread_mutex_lock(&lock);
    text = interned(text);
    pthread_mutex_unlock(&lock);
    return text;
}

/* For recorder.py. */

API void fake_reset(void)
{
    pthread_mutex_lock(&lock);
    count = 0;
    pthread_mutex_unlock(&lock);
}

/* Copies up to `most` records to `out`; returns how many there are. */
API uint64_t fake_records(struct record *out, uint64_t most)
{
    pthread_mutex_lock(&lock);
    uint64_t found = count;
    memcpy(out, records, (found < most ? found : most) * sizeof *records);
    pthread_mutex_unlock(&lock);
    return found;
}
