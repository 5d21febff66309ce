/* aes.c - the Lua module mbus.aes: what security modes 5 and 7 need of AES-128, from mbedTLS (2.28 or 3.x).
 *
 *   aes.cbc_encrypt(key, iv, bytes)   bytes      whole blocks of 16, no padding (NIST SP 800-38A)
 *   aes.cbc_decrypt(key, iv, bytes)   bytes
 *   aes.cmac(key, bytes)              16 bytes   (RFC 4493)
 *
 * Decoding does not need it. A key or IV that has not 16 bytes, or a part of a block, is the caller's bug and raises.
 * Key schedules live on the C stack, with no call into Lua before they are wiped.
 */
#include <string.h>

#include <mbedtls/aes.h>
#include <mbedtls/cipher.h>
#include <mbedtls/cmac.h>

#include <lauxlib.h>
#include <lua.h>

#if !defined MBEDTLS_CIPHER_MODE_CBC || !defined MBEDTLS_CMAC_C
#error "mbus.aes needs an mbedTLS with MBEDTLS_CIPHER_MODE_CBC and MBEDTLS_CMAC_C"
#endif

enum { BLOCK = 16, KEY_BITS = 128 };

/* A string of 16 bytes. The message names the argument, never its content. */
static const unsigned char *check_block(lua_State *L, int arg, const char *what)
{
    size_t n;
    const char *bytes = luaL_checklstring(L, arg, &n);

    if (n != BLOCK)
        luaL_argerror(L, arg, lua_pushfstring(L, "%s has 16 bytes, not %d", what, (int)n));
    return (const unsigned char *)bytes;
}

static int raise_failure(lua_State *L, int rc)
{
    return luaL_error(L, "AES failed: mbedTLS error %d", rc);
}

static int cbc(lua_State *L, int mode)
{
    const unsigned char *key = check_block(L, 1, "a key");
    const unsigned char *iv_given = check_block(L, 2, "an initialization vector");
    size_t n;
    const char *in = luaL_checklstring(L, 3, &n);
    mbedtls_aes_context context;
    unsigned char iv[BLOCK]; /* mbedTLS chains in it */
    luaL_Buffer buffer;
    char *out;
    int rc;

    luaL_argcheck(L, n % BLOCK == 0, 3, "whole blocks of 16 bytes expected");
    out = luaL_buffinitsize(L, &buffer, n);
    memcpy(iv, iv_given, sizeof iv);
    mbedtls_aes_init(&context);
    rc = mode == MBEDTLS_AES_ENCRYPT ? mbedtls_aes_setkey_enc(&context, key, KEY_BITS)
                                     : mbedtls_aes_setkey_dec(&context, key, KEY_BITS);
    if (rc == 0)
        rc = mbedtls_aes_crypt_cbc(&context, mode, n, iv, (const unsigned char *)in, (unsigned char *)out);
    mbedtls_aes_free(&context);
    if (rc != 0)
        return raise_failure(L, rc);
    luaL_pushresultsize(&buffer, n);
    return 1;
}

static int cbc_encrypt(lua_State *L)
{
    return cbc(L, MBEDTLS_AES_ENCRYPT);
}

static int cbc_decrypt(lua_State *L)
{
    return cbc(L, MBEDTLS_AES_DECRYPT);
}

static int cmac(lua_State *L)
{
    const unsigned char *key = check_block(L, 1, "a key");
    size_t n;
    const char *in = luaL_checklstring(L, 2, &n);
    const mbedtls_cipher_info_t *cipher = mbedtls_cipher_info_from_type(MBEDTLS_CIPHER_AES_128_ECB);
    unsigned char out[BLOCK];
    int rc;

    if (!cipher)
        return luaL_error(L, "this mbedTLS has no AES-128-ECB");
    rc = mbedtls_cipher_cmac(cipher, key, KEY_BITS, (const unsigned char *)in, n, out);
    if (rc != 0)
        return raise_failure(L, rc);
    lua_pushlstring(L, (const char *)out, sizeof out);
    return 1;
}

static const luaL_Reg functions[] = {
    {"cbc_encrypt", cbc_encrypt}, {"cbc_decrypt", cbc_decrypt}, {"cmac", cmac}, {NULL, NULL}};

LUAMOD_API int luaopen_mbus_aes(lua_State *L);

LUAMOD_API int luaopen_mbus_aes(lua_State *L)
{
    luaL_checkversion(L);
    luaL_newlib(L, functions);
    return 1;
}
