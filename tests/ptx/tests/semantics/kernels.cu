// Kernels that clang compiles for the tests; no header of a CUDA toolkit is needed.
#define kernel extern "C" __attribute__((global)) void
#define device __attribute__((device))
#define shared __attribute__((shared))
#define THREAD ((int)__nvvm_read_ptx_sreg_tid_x())
#define THREAD_Y ((int)__nvvm_read_ptx_sreg_tid_y())
#define BLOCK ((int)__nvvm_read_ptx_sreg_ctaid_x())
#define BLOCK_Y ((int)__nvvm_read_ptx_sreg_ctaid_y())
#define THREADS ((int)__nvvm_read_ptx_sreg_ntid_x())
#define BARRIER __syncthreads()

kernel saxpy(float *y, const float *x, float a, int n) {
    for (int i = BLOCK * THREADS + THREAD; i < n; i += THREADS * (int)__nvvm_read_ptx_sreg_nctaid_x()) y[i] += a * x[i];
}

// C = A B for multiples of 32, one element per thread.
kernel product(float *c, const float *a, const float *b, int n) {
    shared static float left[32][32], right[32][33];
    int row = 32 * BLOCK_Y + THREAD_Y, column = 32 * BLOCK + THREAD;
    float sum = 0;
    for (int k = 0; k < n; k += 32) {
        left[THREAD_Y][THREAD] = a[row * n + k + THREAD];
        right[THREAD_Y][THREAD] = b[(k + THREAD_Y) * n + column];
        BARRIER;
        for (int i = 0; i < 32; ++i) sum = __builtin_fmaf(left[THREAD_Y][i], right[i][THREAD], sum);
        BARRIER;
    }
    c[row * n + column] = sum;
}

// Sum of a block, by shuffles and then through shared memory.
kernel block_sum(float *out, const float *x, int n) {
    shared static float partial[32];
    float sum = 0;
    for (int i = THREAD; i < n; i += THREADS) sum += x[i];
    for (int distance = 16; distance; distance /= 2)
        sum += __nvvm_shfl_sync_bfly_f32(0xffffffff, sum, distance, 31);
    if (THREAD % 32 == 0) partial[THREAD / 32] = sum;
    BARRIER;
    if (THREAD == 0) {
        float total = 0;
        for (int i = 0; i < THREADS / 32; ++i) total += partial[i];
        *out = total;
    }
}

// Lanes take different paths of different lengths; a switch becomes a table of branches.
kernel paths(int *out, const int *in, int n) {
    int i = BLOCK * THREADS + THREAD;
    if (i >= n) return;
    int value = in[i], steps = 0;
    while (value != 1) {
        value = value % 2 ? 3 * value + 1 : value / 2;
        if (++steps > 500) break;
    }
    switch (in[i] % 6) {
        case 0: steps += 1000; break;
        case 1: steps *= 3; break;
        case 2: steps -= 7; break;
        case 3: steps ^= 0x55; break;
        case 4: steps = -steps; break;
        default: steps <<= 2;
    }
    out[i] = steps;
}

// An array that is indexed at run time lives in local memory.
kernel histogram(int *out, const unsigned char *in, int n) {
    int counts[16];
    for (int i = 0; i < 16; ++i) counts[i] = 0;
    for (int i = 0; i < n; ++i) counts[in[THREAD * n + i] & 15]++;
    int most = 0;
    for (int i = 1; i < 16; ++i)
        if (counts[i] > counts[most]) most = i;
    out[THREAD] = most;
}

// 64-bit arithmetic, divisions and conversions.
kernel mixture(double *out, const long *in, int n) {
    int i = BLOCK * THREADS + THREAD;
    if (i >= n) return;
    long value = in[i];
    unsigned long mixed = (unsigned long)value * 0x9e3779b97f4a7c15ul;
    mixed ^= mixed >> 31;
    double quotient = (double)(value / 7) + (double)(mixed % 1000) / 3.0;
    float narrowed = (float)quotient;
    out[i] = quotient * 0.5 + narrowed + (short)value + (unsigned char)value;
}
