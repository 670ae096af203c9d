# Writes HEADER with the commit that is checked out; "unknown" outside of a repository. Run with cmake -P.
execute_process(COMMAND git rev-parse --short HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
                ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define KVASIR_COMMIT \"${commit}\"\n" @ONLY)
